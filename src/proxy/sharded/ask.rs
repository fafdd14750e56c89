//! Questions of the proxy's own to one shard, whose answer is held as a whole.

use crate::exec::collect::value;
use crate::proxy::sharded::prepare::malformed;
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::wire::body::{Malformed, Reader};

/// The values of a row, as text; `None` is NULL.
pub(crate) type Row = Vec<Option<Vec<u8>>>;

impl ShardedSession {
    /// The rows of a query to a shard that is [attached](Self::attach).
    ///
    /// # Errors
    /// The shard's own, its loss, or a row that is none.
    pub(super) async fn ask(&mut self, shard: usize, sql: &str) -> Result<Vec<Row>, Trouble> {
        self.link(shard)?.query(sql.as_bytes());
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let Ok(frame) = self.link(shard)?.frame().await else { return Err(self.lose(shard)) };
            match frame.tag {
                b'D' => rows.push(row(frame.body())),
                b'E' => error = error.or_else(|| Some(frame.bytes.to_vec())),
                b'Z' => break,
                _ => {}
            }
        }
        match error {
            Some(error) => Err(Trouble::Server(error)),
            None => rows.into_iter().collect::<Result<_, _>>().map_err(malformed),
        }
    }

    /// The only value of such a query; none where it gives no row, or NULL.
    pub(super) async fn ask_for_one(&mut self, shard: usize, sql: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let rows = self.ask(shard, sql).await?;
        Ok(rows.into_iter().flatten().next().flatten())
    }
}

fn row(body: &[u8]) -> Result<Row, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    (0..count).map(|_| Ok(value(&mut reader)?.map(<[u8]>::to_vec))).collect()
}
