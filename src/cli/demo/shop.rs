//! The shop: a schema, and rows that follow from their numbers, so that every run is the same.

use indicatif::ProgressBar;

use super::stage::Stage;
use crate::db;
use crate::error::{Error, Result};

/// Number of customers; each has orders, and each order has lines.
pub(super) const CUSTOMERS: u32 = 2_000;
/// Orders of each customer.
pub(super) const ORDERS_EACH: u32 = 20;
/// Lines of each order.
const LINES_EACH: u32 = 2;
/// Number of products, a reference table.
pub(super) const PRODUCTS: u32 = 3_000;
/// Rows in one INSERT of products.
const PRODUCTS_AT_ONCE: u32 = 500;
/// Clients that load at the same time.
const LOADERS: u32 = 4;

/// The tables in the order of their creation.
pub(super) const TABLES: [&str; 5] = ["customers", "orders", "order_items", "countries", "products"];

/// The schema, one statement each. The primary key of `orders` begins with the wrong column for
/// the questions that the shop asks: that is for the index report to find.
const SCHEMA: [&str; 5] = [
    "CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE products (sku text PRIMARY KEY, name text NOT NULL, description text NOT NULL, \
     price numeric(10,2) NOT NULL)",
    "CREATE TABLE customers (id bigint PRIMARY KEY, email text NOT NULL, name text NOT NULL, \
     country text NOT NULL REFERENCES countries, notes text, created_at timestamptz NOT NULL)",
    "CREATE TABLE orders (id bigint NOT NULL, customer_id bigint NOT NULL REFERENCES customers, status text NOT NULL, \
     total numeric(10,2) NOT NULL, placed_at timestamptz NOT NULL, PRIMARY KEY (id, customer_id))",
    "CREATE TABLE order_items (customer_id bigint NOT NULL, order_id bigint NOT NULL, line int NOT NULL, \
     sku text NOT NULL REFERENCES products, quantity int NOT NULL, price numeric(10,2) NOT NULL, \
     PRIMARY KEY (customer_id, order_id, line), FOREIGN KEY (order_id, customer_id) REFERENCES orders)",
];

const COUNTRIES: [(&str, &str); 8] = [
    ("at", "Austria"),
    ("de", "Germany"),
    ("fi", "Finland"),
    ("fr", "France"),
    ("ie", "Ireland"),
    ("it", "Italy"),
    ("nl", "Netherlands"),
    ("pl", "Poland"),
];

/// Creates the schema and loads the rows, all through the proxy.
pub(super) async fn fill(stage: &Stage) -> Result<()> {
    let url = stage.proxy_url();
    let client = db::connect(&url).await?;
    for statement in SCHEMA {
        run(&client, statement).await?;
    }
    run(&client, &countries()).await?;
    for first in (0..PRODUCTS).step_by(PRODUCTS_AT_ONCE as usize) {
        run(&client, &products(first..(first + PRODUCTS_AT_ONCE).min(PRODUCTS))).await?;
    }

    let bar = ProgressBar::new(CUSTOMERS.into()).with_message("customers");
    let mut loaders = tokio::task::JoinSet::new();
    for loader in 0..LOADERS {
        let (url, bar) = (url.clone(), bar.clone());
        loaders.spawn(async move {
            let client = db::connect(&url).await?;
            for customer in (1..=CUSTOMERS).filter(|customer| customer % LOADERS == loader) {
                for statement in [customer_row(customer), orders_of(customer), items_of(customer)] {
                    run(&client, &statement).await?;
                }
                bar.inc(1);
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(finished) = loaders.join_next().await {
        finished.map_err(|error| Error::internal(format!("a loader ended early: {error}")))??;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn run(client: &tokio_postgres::Client, statement: &str) -> Result<()> {
    client.batch_execute(statement).await.map_err(|error| {
        let start: String = statement.chars().take(60).collect();
        db::explain_failure(&error, "the shop could not be filled through the proxy").at(format!("{start}..."))
    })
}

fn countries() -> String {
    let rows: Vec<String> = COUNTRIES.iter().map(|(code, name)| format!("('{code}', '{name}')")).collect();
    format!("INSERT INTO countries (code, name) VALUES {}", rows.join(", "))
}

fn products(numbers: std::ops::Range<u32>) -> String {
    let kinds = ["lamp", "chair", "desk", "shelf", "rug", "clock"];
    let rows: Vec<String> = numbers
        .map(|number| {
            let kind = pick(&kinds, number);
            let price = 5 + number % 200;
            format!(
                "('sku-{number}', '{kind} {number}', 'A {kind} that goes with the others, model {number}.', {price}.90)"
            )
        })
        .collect();
    format!("INSERT INTO products (sku, name, description, price) VALUES {}", rows.join(", "))
}

fn customer_row(customer: u32) -> String {
    let (country, _) = pick(&COUNTRIES, customer);
    let notes = "Prefers to be called in the afternoon. ".repeat(1 + customer as usize % 5);
    format!(
        "INSERT INTO customers (id, email, name, country, notes, created_at) VALUES \
         ({customer}, 'customer{customer}@example.com', 'Customer {customer}', '{country}', '{notes}', \
         timestamptz '2025-01-01 00:00:00+00' + {customer} * interval '1 hour')"
    )
}

/// The numbers of a customer's orders.
pub(super) fn order_numbers(customer: u32) -> impl Iterator<Item = u32> {
    (0..ORDERS_EACH).map(move |nth| customer * 100 + nth)
}

fn orders_of(customer: u32) -> String {
    let rows: Vec<String> = order_numbers(customer)
        .map(|order| {
            let status = pick(&["open", "paid", "shipped", "shipped", "shipped"], order);
            let (total, day) = (10 + order % 300, order % 500);
            format!(
                "({order}, {customer}, '{status}', {total}.50, timestamptz '2025-06-01 12:00:00+00' + {day} * interval '1 day')"
            )
        })
        .collect();
    format!("INSERT INTO orders (id, customer_id, status, total, placed_at) VALUES {}", rows.join(", "))
}

fn items_of(customer: u32) -> String {
    let rows: Vec<String> = order_numbers(customer)
        .flat_map(|order| (1..=LINES_EACH).map(move |line| (order, line)))
        .map(|(order, line)| {
            let (product, quantity) = ((order * 7 + line) % PRODUCTS, 1 + order % 3);
            format!("({customer}, {order}, {line}, 'sku-{product}', {quantity}, {}.90)", 5 + product % 200)
        })
        .collect();
    format!("INSERT INTO order_items (customer_id, order_id, line, sku, quantity, price) VALUES {}", rows.join(", "))
}

/// The member of `from` that `number` falls on.
fn pick<T: Copy + Default>(from: &[T], number: u32) -> T {
    from.get(number as usize % from.len().max(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_their_numbers() {
        assert!(customer_row(9).contains("(9, 'customer9@example.com', 'Customer 9', 'de'"));
        assert_eq!(orders_of(3).matches(", 3, '").count(), ORDERS_EACH as usize);
        assert_eq!(items_of(3).matches("(3, ").count(), (ORDERS_EACH * LINES_EACH) as usize);
        assert_eq!(products(0..2).matches("sku-").count(), 2);
    }
}
