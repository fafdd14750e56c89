# The ways into the project. `make help` lists them.

.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help demo test lint bench docs postgres drivers

help: ## list these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-10s%s\n' "$$name" "$$what"; \
	done

demo: postgres ## two shards, a proxy, a workload, findings and an index report; ends by itself
	$(CARGO) build --release --locked
	./target/release/pgweir demo $(ARGS)

test: postgres drivers ## the whole suite, on PostgreSQL servers that the tests start
	$(CARGO) test --locked --no-fail-fast

lint: ## formatting and clippy, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: postgres ## speed of the template engine; of the proxy beside PgBouncer where that is installed
	$(CARGO) bench --locked
	$(CARGO) build --release --locked
	@if command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; then \
		python3 benches/proxy.py; \
	else \
		echo "skipped benches/proxy.py: pgbouncer is not installed (apt-get install pgbouncer)"; \
	fi

docs: ## regenerate docs/rules.md and docs/configuration.md
	$(CARGO) run --locked -q -- rules docs > docs/rules.md
	$(CARGO) run --locked -q -- check --print-settings > docs/configuration.md

postgres: ## install PostgreSQL 15, HypoPG and a C compiler by apt where missing
	@scripts/install-postgres.sh

drivers: ## install the Python drivers that the tests run through the proxy, into target/drivers
	@scripts/install-drivers.sh
