//! Clients at work: what a shop asks of its database, with the mistakes that shops make.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::shop::{CUSTOMERS, PRODUCTS, order_numbers};
use super::stage::Stage;
use crate::db;
use crate::error::{Error, Result};

/// Clients that work at the same time.
const CLIENTS: u32 = 6;

/// Pause between two deeds of one client, so that the demo is no load test.
const PAUSE: Duration = Duration::from_millis(2);

/// One kind of thing that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    LookUpCustomer,
    ShowProfile,
    LatestOrders,
    OrderLinesOneByOne,
    OpenOrdersWithCountry,
    OrdersOfADay,
    SearchProducts,
    BrowseFarPages,
    ShipOrder,
    PlaceOrder,
    CountAllOrders,
    LockOpenOrders,
}

impl Deed {
    /// How often each is done in one round of a client; `CountAllOrders` and `LockOpenOrders` are tried once in all.
    const ROUND: [Self; 17] = [
        Self::LookUpCustomer,
        Self::LatestOrders,
        Self::ShowProfile,
        Self::LookUpCustomer,
        Self::SearchProducts,
        Self::LatestOrders,
        Self::OrderLinesOneByOne,
        Self::LookUpCustomer,
        Self::OpenOrdersWithCountry,
        Self::LatestOrders,
        Self::ShowProfile,
        Self::PlaceOrder,
        Self::LookUpCustomer,
        Self::OrdersOfADay,
        Self::BrowseFarPages,
        Self::ShipOrder,
        Self::LatestOrders,
    ];

    /// Its statement, as an example to explain. Of a transaction, one of its statements.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::LookUpCustomer => "SELECT id, name, country FROM customers WHERE id = 7",
            Self::ShowProfile => "SELECT * FROM customers WHERE id = 42",
            Self::LatestOrders => {
                "SELECT id, status, total FROM orders WHERE customer_id = 7 ORDER BY placed_at DESC LIMIT 5"
            }
            Self::OrderLinesOneByOne => {
                "SELECT sku, quantity FROM order_items WHERE customer_id = 7 AND order_id = 700"
            }
            Self::OpenOrdersWithCountry => {
                "SELECT o.id, o.total, k.name FROM orders o JOIN customers c ON c.id = o.customer_id \
                 JOIN countries k ON k.code = c.country WHERE o.customer_id = 7 AND o.status = 'open'"
            }
            Self::OrdersOfADay => {
                "SELECT id, total FROM orders WHERE customer_id = 7 AND date_trunc('day', placed_at) = '2025-09-01'"
            }
            Self::SearchProducts => "SELECT sku, name FROM products WHERE name LIKE '%lamp 12%'",
            Self::BrowseFarPages => "SELECT sku, name, price FROM products ORDER BY price, sku LIMIT 20 OFFSET 2000",
            Self::ShipOrder => "UPDATE orders SET status = 'shipped' WHERE customer_id = 7 AND id = 700",
            Self::PlaceOrder => {
                "INSERT INTO orders (id, customer_id, status, total, placed_at) VALUES (1, 7, 'open', 20.90, now())"
            }
            Self::CountAllOrders => "SELECT status, count(*), sum(total) FROM orders GROUP BY status ORDER BY status",
            Self::LockOpenOrders => "SELECT id FROM orders WHERE status = 'open' ORDER BY id LIMIT 5 FOR UPDATE",
        }
    }
}

/// What was done, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How often each deed's example statement was sent, with other values.
    pub(super) deeds: BTreeMap<Deed, u64>,
    /// All statements, those beside a deed's example too.
    statements: u64,
    /// The proxy's refusals: SQLSTATE 0A000, what it said.
    refused: Vec<String>,
    elapsed: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (deed, count) in other.deeds {
            *self.deeds.entry(deed).or_default() += count;
        }
        self.statements += other.statements;
        self.refused.extend(other.refused);
    }

    /// One line, and one more where something was refused.
    pub(super) fn describe(&self) -> String {
        let total = self.statements;
        let seconds = self.elapsed.as_secs_f64();
        let mut text = format!("  {CLIENTS} clients sent {total} statements in {seconds:.1} s, all of them answered");
        match self.refused.len() {
            0 => text.push_str(".\n"),
            count => text.push_str(&format!(" but {count}, which the proxy could not prove right and refused.\n")),
        }
        text
    }
}

/// Lets the clients work for `duration`.
pub(super) async fn run(stage: &Stage, duration: Duration) -> Result<Tally> {
    let began = Instant::now();
    let bar = ProgressBar::new(duration.as_millis().try_into().unwrap_or(u64::MAX));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (url, bar) = (stage.proxy_url(), bar.clone());
        clients.spawn(async move {
            let mut client = Client::connect(&url, number).await?;
            let mut rounds = Deed::ROUND.iter().cycle().skip(number as usize * 3);
            while began.elapsed() < duration
                && let Some(deed) = rounds.next()
            {
                client.does(*deed).await?;
                bar.set_position(began.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
                tokio::time::sleep(PAUSE).await;
            }
            if number == 0 {
                client.does(Deed::CountAllOrders).await?;
                client.does(Deed::LockOpenOrders).await?;
            }
            Ok::<Tally, Error>(client.tally)
        });
    }
    let mut tally = Tally::default();
    while let Some(finished) = clients.join_next().await {
        tally.add(finished.map_err(|error| Error::internal(format!("a client ended early: {error}")))??);
    }
    bar.finish_and_clear();
    tally.elapsed = began.elapsed();
    Ok(tally)
}

/// One client with a connection of its own.
struct Client {
    connection: tokio_postgres::Client,
    number: u32,
    /// State of a small linear congruential generator: which customer is next.
    seed: u32,
    tally: Tally,
}

impl Client {
    async fn connect(url: &str, number: u32) -> Result<Self> {
        Ok(Self { connection: db::connect(url).await?, number, seed: number, tally: Tally::default() })
    }

    /// A number below `bound`; the constants are Numerical Recipes'.
    fn next(&mut self, bound: u32) -> u32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.seed >> 8) % bound.max(1)
    }

    async fn does(&mut self, deed: Deed) -> Result<()> {
        let customer = 1 + self.next(CUSTOMERS);
        let id = i64::from(customer);
        match deed {
            Deed::LookUpCustomer => {
                self.ask(deed, "SELECT id, name, country FROM customers WHERE id = $1", &[&id]).await
            }
            Deed::ShowProfile => self.say(deed, &format!("SELECT * FROM customers WHERE id = {customer}")).await,
            Deed::LatestOrders => {
                let sql =
                    "SELECT id, status, total::text FROM orders WHERE customer_id = $1 ORDER BY placed_at DESC LIMIT 5";
                self.ask(deed, sql, &[&id]).await
            }
            Deed::OrderLinesOneByOne => {
                for order in order_numbers(customer) {
                    let sql = "SELECT sku, quantity FROM order_items WHERE customer_id = $1 AND order_id = $2";
                    self.ask(deed, sql, &[&id, &i64::from(order)]).await?;
                }
                Ok(())
            }
            Deed::OpenOrdersWithCountry => {
                let sql = format!(
                    "SELECT o.id, o.total, k.name FROM orders o JOIN customers c ON c.id = o.customer_id \
                     JOIN countries k ON k.code = c.country WHERE o.customer_id = {customer} AND o.status = 'open'"
                );
                self.say(deed, &sql).await
            }
            Deed::OrdersOfADay => {
                let day = 1 + self.next(28);
                let sql = format!(
                    "SELECT id, total FROM orders WHERE customer_id = {customer} \
                     AND date_trunc('day', placed_at) = '2025-09-{day:02}'"
                );
                self.say(deed, &sql).await
            }
            Deed::SearchProducts => {
                let model = self.next(PRODUCTS / 10);
                self.say(deed, &format!("SELECT sku, name FROM products WHERE name LIKE '%lamp {model}%'")).await
            }
            Deed::BrowseFarPages => {
                let offset = 1000 + 20 * self.next(90);
                let sql = format!("SELECT sku, name, price FROM products ORDER BY price, sku LIMIT 20 OFFSET {offset}");
                self.say(deed, &sql).await
            }
            Deed::ShipOrder => {
                let order = i64::from(customer * 100 + self.next(20));
                let sql = "UPDATE orders SET status = 'shipped' WHERE customer_id = $1 AND id = $2";
                self.ask(deed, sql, &[&id, &order]).await
            }
            Deed::PlaceOrder => self.place_order(customer).await,
            Deed::CountAllOrders | Deed::LockOpenOrders => self.say(deed, deed.example()).await,
        }
    }

    /// A transaction of two inserts, all of one customer and so of one shard.
    async fn place_order(&mut self, customer: u32) -> Result<()> {
        let placed = self.tally.deeds.get(&Deed::PlaceOrder).copied().unwrap_or_default();
        let order = u64::from(self.number + 1) * 1_000_000_000 + placed;
        let product = self.next(PRODUCTS);
        self.say(None, "BEGIN").await?;
        let sql = format!(
            "INSERT INTO orders (id, customer_id, status, total, placed_at) VALUES ({order}, {customer}, 'open', 20.90, now())"
        );
        self.say(Deed::PlaceOrder, &sql).await?;
        let sql = format!(
            "INSERT INTO order_items (customer_id, order_id, line, sku, quantity, price) \
             VALUES ({customer}, {order}, 1, 'sku-{product}', 1, 20.90)"
        );
        self.say(None, &sql).await?;
        self.say(None, "COMMIT").await
    }

    /// The extended protocol, with parameters.
    async fn ask(
        &mut self,
        deed: impl Into<Option<Deed>>,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        let answer = self.connection.query(sql, parameters).await.map(|_| ());
        self.note(deed.into(), sql, answer)
    }

    /// The simple protocol.
    async fn say(&mut self, deed: impl Into<Option<Deed>>, sql: &str) -> Result<()> {
        let answer = self.connection.simple_query(sql).await.map(|_| ());
        self.note(deed.into(), sql, answer)
    }

    /// Counts an answer to a deed's example, or to what goes with it. A refusal is one too; any other error ends the demo.
    fn note(&mut self, deed: Option<Deed>, sql: &str, answer: Result<(), tokio_postgres::Error>) -> Result<()> {
        self.tally.statements += 1;
        if let Some(deed) = deed {
            *self.tally.deeds.entry(deed).or_default() += 1;
        }
        match answer {
            Ok(()) => Ok(()),
            Err(error)
                if deed == Some(Deed::LockOpenOrders) && error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) =>
            {
                self.tally.refused.push(error.to_string());
                Ok(())
            }
            Err(error) => {
                Err(db::explain_failure(&error, "the proxy did not answer a statement of the workload").at(sql))
            }
        }
    }
}
