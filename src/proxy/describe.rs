//! Describe and Close of statements and portals.

use crate::pool::statements::PREFIX;
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::{Expect, Named};
use crate::proxy::from_client::{Ways, malformed};
use crate::wire::body::Reader;
use crate::wire::message;

impl Conversation {
    pub(super) fn describe_or_close(
        &mut self,
        whole: &[u8],
        body: &[u8],
        ways: &mut Ways<'_>,
    ) -> Result<Option<Next>, Next> {
        let (tag, what) = if whole.first() == Some(&b'D') { (b'D', "Describe") } else { (b'C', "Close") };
        let mut reader = Reader::new(body);
        let (Ok(kind), Ok(name)) = (reader.u8(), reader.cstr()) else { return Err(malformed(what)) };
        if !reader.is_empty() || !matches!(kind, b'S' | b'P') {
            return Err(malformed(what));
        }
        match (tag, kind) {
            (b'D', b'S') => {
                let Ok(statement) = self.server_name(name, ways)? else { return Ok(None) };
                let statement = statement.filter(|_| !self.plain);
                let server_name = statement.as_ref().map_or(name, |statement| &statement.name);
                message::named(ways.to_server, b'D', b'S', server_name);
                let subject = self.subject(name, statement.clone());
                self.expects.push(Expect::Describe(subject));
                self.unsynced = true;
                Ok(None)
            }
            (b'D', _) => {
                let subject = self.described_portal(name);
                Ok(self.extended(whole, Expect::Describe(subject), ways))
            }
            (_, b'S') => self.close_statement(whole, name, ways),
            _ => Ok(self.extended(whole, Expect::Close, ways)),
        }
    }

    fn close_statement(&mut self, whole: &[u8], name: &[u8], ways: &mut Ways<'_>) -> Result<Option<Next>, Next> {
        if name.is_empty() {
            self.statements.drop_unnamed();
            if let Some(state) = &mut ways.state {
                state.forget_unnamed();
            }
            return Ok(self.extended(whole, Expect::Close, ways));
        }
        if self.names_unsettled() {
            return Ok(Some(Next::Stall));
        }
        match self.statements.set(name, None) {
            _ if self.plain => Ok(self.extended(whole, Expect::Close, ways)),
            Some(previous) => {
                // Other clients may use the same statement: it stays on the server connection.
                let named = Named { name: name.into(), previous: Some(previous), key: None };
                self.expects.push(Expect::Local(b'3', Some(Box::new(named))));
                self.change_segment = self.segment;
                Ok(None)
            }
            None if name.starts_with(PREFIX) => {
                self.expects.push(Expect::Local(b'3', None));
                Ok(None)
            }
            None => Ok(self.extended(whole, Expect::Close, ways)),
        }
    }
}
