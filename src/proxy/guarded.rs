//! A client's statements before its database's guard.

use std::sync::Arc;

use crate::pool::statements::Kind;
use crate::proxy::analyzer::Analyzer;
use crate::proxy::conversation::{Conversation, Next};
use crate::proxy::expect::Expect;
use crate::proxy::from_client::Ways;
use crate::proxy::guard::Guard;
use crate::wire::body::Reader;
use crate::wire::frame::{HEADER_LEN, Header};

impl Conversation {
    /// Holds the client's statements against these rules from now on. What it has prepared is gone where they deny it.
    pub fn guard_by(&mut self, guard: Option<Arc<Guard>>, analyzer: &mut Analyzer) {
        if self.guard.as_ref().map(|guard| guard.id) == guard.as_ref().map(|guard| guard.id) {
            return;
        }
        if let Some(guard) = &guard {
            let mut denied = |text: &[u8]| {
                let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                analyzer.ruling(guard, text).is_some_and(|ruling| ruling.denial.is_some())
            };
            self.statements.retain(|statement| match statement.kind {
                Kind::Protocol => !denied(&statement.rest),
                Kind::Sql => !denied(&statement.prepare()),
            });
            if self.statements.unnamed().is_some_and(denied) {
                self.statements.drop_unnamed();
                // Also where a server connection still has it.
                self.statements.unnamed_count += 1;
            }
        }
        self.guard = guard;
    }

    /// A message of a client whose statements are guarded.
    pub(super) fn guarded_frame(
        &mut self,
        header: Header,
        whole: &[u8],
        ways: &mut Ways<'_>,
    ) -> Result<Option<Next>, Next> {
        let body = whole.get(HEADER_LEN..).unwrap_or_default();
        let mut reader = Reader::new(body);
        let sql = match header.tag {
            b'Q' => reader.cstr(),
            b'P' => reader.cstr().and_then(|_| reader.cstr()),
            _ => return self.whole_frame(header, whole, ways),
        };
        let ruling = self.guard.as_deref().zip(sql.ok()).and_then(|(guard, sql)| ways.analyzer.ruling(guard, sql));
        let Some(ruling) = ruling else { return self.whole_frame(header, whole, ways) };
        if !self.commented {
            ways.analyzer.count_ruling(&ruling);
        }
        if let Some(denial) = &ruling.denial {
            self.refuse(denial.clone(), ways);
            if header.tag == b'Q' {
                self.sync(b"S\0\0\0\x04", ways);
            }
            return Ok(None);
        }
        // Where the message has to wait it comes again.
        if !std::mem::replace(&mut self.commented, true) {
            if self.expects.is_empty() && self.answering.left == 0 {
                ruling.comment(ways.to_client);
            } else {
                self.expects.push(Expect::Comment(ruling));
            }
        }
        let next = self.whole_frame(header, whole, ways);
        self.commented = !matches!(next, Ok(None));
        next
    }
}
