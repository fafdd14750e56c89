# Builds pgweir from this directory; the result holds the one binary and the certificates of public authorities.
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked && strip target/release/pgweir

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home pgweir
COPY --from=build /src/target/release/pgweir /usr/local/bin/pgweir
USER pgweir
EXPOSE 6432 9630
ENTRYPOINT ["pgweir"]
CMD ["proxy", "-c", "/etc/pgweir/pgweir.yaml"]
