"""SQLAlchemy's ORM and reflection over psycopg 3, psycopg2 and asyncpg."""
import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from scenario import DSN, TAG, show


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = f"author_{TAG}"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = f"book_{TAG}"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(sa.ARRAY(sa.String))
    extra: Mapped[dict] = mapped_column(sa.JSON)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(Author.id))
    author: Mapped[Author] = relationship(back_populates="books")


def orm(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Author(name=f"author {n}", books=[Book(title=f"t{n}.{m}", tags=["x", str(m)], extra={"m": m})
                                                           for m in range(3)]) for n in range(5)])
        session.commit()
        query = sa.select(Author.name, sa.func.count(Book.id)).join(Book).group_by(Author.name).order_by(Author.name)
        show("grouped", session.execute(query).all())
        author = session.scalars(sa.select(Author).where(Author.name == "author 2")).one()
        show("related", [(book.title, book.tags, book.extra) for book in author.books])
        author.name = "renamed"
        session.flush()
        session.rollback()
        show("rolled back", author.name)
        with session.begin_nested():
            session.execute(sa.update(Book).values(title=Book.title + "!").where(Book.author_id == author.id))
        session.commit()
        show("bulk", session.scalars(sa.select(Book.title).order_by(Book.title)).all())
        show("streamed", sum(1 for _ in session.execute(sa.select(Book).execution_options(yield_per=4)).scalars()))
        try:
            session.execute(sa.insert(Author).values(name="author 1"))
        except sa.exc.IntegrityError as error:
            show("integrity", type(error.orig).__name__)
            session.rollback()
    inspector = sa.inspect(engine)
    show("columns", [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(Book.__tablename__)])
    show("keys", [(k["constrained_columns"], k["referred_table"]) for k in inspector.get_foreign_keys(Book.__tablename__)])
    show("unique", [u["column_names"] for u in inspector.get_unique_constraints(Author.__tablename__)])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        show("autocommit", conn.scalar(sa.text("select 1")))
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        show("serializable", conn.scalar(sa.text("show transaction_isolation")))
    Base.metadata.drop_all(engine)


async def asynchronous():
    engine = create_async_engine(DSN.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as conn:
        show("async", (await conn.execute(sa.text("select 1, 'x'"))).all())
    await engine.dispose()


for driver in ("psycopg", "psycopg2"):
    engine = sa.create_engine(DSN.replace("postgresql:", f"postgresql+{driver}:"), pool_size=3)
    show("driver", driver)
    orm(engine)
    engine.dispose()
asyncio.run(asynchronous())
