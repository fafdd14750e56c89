//! EXPLAIN over several shards: the router's plan, then each shard's plan for its part.
//!
//! `EXPLAIN (ROUTE) ..` asks for that of any statement; without it, a statement that one shard answers is explained by that shard, as
//! anywhere.

use crate::proxy::sharded::collect::{Asked, COMPUTES};
use crate::proxy::sharded::names::Target;
use crate::proxy::sharded::planned::{Planned, Values};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::{ShardId, Shards, TextBindings};
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};
use crate::sql::template::Binding;
use crate::wire::message::{self, Failure};

/// An EXPLAIN in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explain<'a> {
    /// What stands in front of the statement for servers: `EXPLAIN (COSTS off) `.
    command: String,
    /// The statement.
    inner: &'a str,
    /// The router's plan is wanted.
    pub route: bool,
    /// The statement is executed.
    analyze: bool,
    /// The answer is text.
    text: bool,
}

impl ShardedSession {
    /// Answers an EXPLAIN with the router's plan and the shards'.
    pub(super) async fn explain(&mut self, explain: &Explain<'_>) -> Result<(), Trouble> {
        let snapshot = self.shared.snapshot().await?;
        let session = self.session_facts()?;
        let expanded = snapshot.expand(explain.inner);
        let sql = expanded.as_deref().unwrap_or(explain.inner);
        let scan = self.scanner.scan(sql.as_bytes());
        let bindings: Vec<Binding> = scan.bindings.to_vec();
        let planned = snapshot.plan(sql, &scan, session)?;
        let plan = snapshot.plan_afresh(sql, &self.scanner.scan(sql.as_bytes()), session);
        let printed = plan.print(&TextBindings { sql, constants: &bindings, parameters: &[] }, sql);
        let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        match planned.route(&Values { sql, bindings: &bindings, parameters: &[] }) {
            Ok(route) => {
                let target = self.target(route);
                self.explain_parts(explain, sql, target, &planned, &mut lines).await?;
            }
            Err(failure) if !explain.route => return Err(failure.into()),
            Err(_) => {}
        }
        self.answer_lines(&lines);
        Ok(())
    }

    async fn explain_parts(
        &mut self,
        explain: &Explain<'_>,
        sql: &str,
        target: Target,
        planned: &Planned,
        lines: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        let refuse = |what: &str| Trouble::Reply(Failure::error("0A000", format!("refused: {what}")));
        if !explain.text {
            return Err(refuse("EXPLAIN over several shards, or with ROUTE, answers in FORMAT TEXT only"));
        }
        let spread_over = |shards: Shards| {
            let plain = planned.plan.spread().is_some_and(|spread| spread.is_plain());
            plain.then(|| shards.iter().collect::<Vec<_>>())
        };
        let shards = match target {
            Target::Shard(shard) => Some(vec![shard]),
            Target::Several(shards, _) | Target::Merge(shards, ..) | Target::Collect(shards) => {
                Some(shards.iter().collect())
            }
            Target::Spread(shards, _) => spread_over(shards),
            Target::All => Some(self.every_shard()),
            Target::Copy | Target::Own => None,
        };
        let Some(shards) = shards else { return Ok(()) };
        let is_whole = matches!(target, Target::Shard(_) | Target::Several(..));
        if explain.analyze && (planned.writes || !is_whole) && !matches!(target, Target::Shard(_)) {
            return Err(refuse("EXPLAIN ANALYZE of a statement that several shards execute together"));
        }
        self.attach(&shards, explain.analyze && planned.writes).await?;
        let question = match target {
            Target::Collect(_) => Some(self.question_of(sql, &shards).await?),
            Target::Merge(..) => Some(self.merged_question(sql)?),
            _ => None,
        };
        for &shard in &shards {
            self.mark(shard, planned.care);
            let text = question.as_ref().map_or_else(|| sql.to_owned(), |question| question(ShardId(shard)));
            lines.push(format!("shard {}:", self.shared.shard_name(shard)));
            let plan = self.ask(shard, &format!("{}{text}", explain.command)).await?;
            let line = |text: Vec<u8>| format!("  {}", String::from_utf8_lossy(&text));
            lines.extend(plan.into_iter().flatten().flatten().map(line));
        }
        Ok(())
    }

    /// What shards are asked when their rows are merged.
    fn merged_question(&mut self, sql: &str) -> Result<Box<dyn Fn(ShardId) -> String + Send>, Trouble> {
        let text = self.plan_of(sql)?.merge().map(|merge| merge.question(sql)).unwrap_or_else(|| sql.to_owned());
        Ok(Box::new(move |_| text.clone()))
    }

    /// What shards are asked when their rows, or groups of them, are collected.
    async fn question_of(
        &mut self,
        sql: &str,
        shards: &[usize],
    ) -> Result<Box<dyn Fn(ShardId) -> String + Send>, Trouble> {
        let plan = self.plan_of(sql)?;
        let changed = || Failure::error("XX000", "the plan of this statement has changed meanwhile");
        let collect = plan.collect().ok_or_else(changed)?;
        self.attach(&[COMPUTES], false).await?;
        for shard in shards.iter().copied().chain([COMPUTES]) {
            self.link(shard)?.conn.state.forget_unnamed();
        }
        let statement = [sql.as_bytes(), b"\0\0\0"].concat();
        let asked = Asked { sql, statement: &statement, values: None, described: true, most: 0 };
        let described = self.ask_what_it_is(COMPUTES, &asked).await?;
        let time = String::from_utf8_lossy(&self.the_time().await?).into_owned();
        let folded = self.folding(collect, &asked, &described).await?;
        let folded = folded.map(|(folding, _, fold)| folding.question(collect, fold, sql, 1));
        let (collect, sql) = (collect.clone(), sql.to_owned());
        Ok(Box::new(move |shard| {
            let text = folded.clone().unwrap_or_else(|| collect.question(&sql, shard, 1));
            // A simple query has no parameters.
            text.replace("$1::pg_catalog.timestamptz", &format!("'{time}'::pg_catalog.timestamptz"))
        }))
    }

    fn answer_lines(&mut self, lines: &[String]) {
        message::frame(&mut self.to_client, b'T', |out| {
            out.extend(1u16.to_be_bytes());
            message::cstr(out, b"QUERY PLAN");
            out.extend([0, 0, 0, 0, 0, 0]);
            out.extend(25u32.to_be_bytes());
            out.extend((-1i16).to_be_bytes());
            out.extend((-1i32).to_be_bytes());
            out.extend(0u16.to_be_bytes());
        });
        for line in lines {
            message::frame(&mut self.to_client, b'D', |out| {
                out.extend(1u16.to_be_bytes());
                out.extend(u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(line.as_bytes());
            });
        }
        message::command_complete(&mut self.to_client, b"EXPLAIN");
    }
}

/// An EXPLAIN's parts; `None` where its options are not understood.
pub(super) fn explain_of(sql: &str) -> Option<Explain<'_>> {
    let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), LexOptions::default()).collect();
    let word = |at: usize| {
        let bytes = tokens.get(at).map(|token| token.bytes(sql.as_bytes())).unwrap_or_default();
        String::from_utf8_lossy(bytes).to_ascii_lowercase()
    };
    let mut explain = Explain { command: "EXPLAIN ".to_owned(), inner: "", route: false, analyze: false, text: true };
    let mut at = 1;
    if tokens.get(1)?.kind == TokenKind::LeftParen {
        let close = tokens.iter().position(|token| token.kind == TokenKind::RightParen)?;
        let mut options = Vec::new();
        for option in tokens.get(2..close)?.split(|token| token.kind == TokenKind::Comma) {
            let (first, last) = (option.first()?, option.last()?);
            let text = sql.get(first.start as usize..last.end as usize)?;
            let words: Vec<String> = option
                .iter()
                .map(|token| String::from_utf8_lossy(token.bytes(sql.as_bytes())).to_ascii_lowercase())
                .collect();
            let said = words.get(1).map_or("true", String::as_str);
            let on = !matches!(said.trim_matches('\''), "false" | "off" | "0");
            match words.first().map(String::as_str) {
                Some("route") => explain.route = on,
                Some("analyze") => explain.analyze = on,
                Some("format") => explain.text = said.trim_matches('\'') == "text",
                _ => {}
            }
            if words.first().is_some_and(|name| name != "route") {
                options.push(text.to_owned());
            }
        }
        if !options.is_empty() {
            explain.command = format!("EXPLAIN ({}) ", options.join(", "));
        }
        at = close + 1;
    } else {
        while matches!(word(at).as_str(), "analyze" | "analyse" | "verbose") {
            explain.analyze |= word(at).starts_with("ana");
            explain.command.push_str(&format!("{} ", word(at)));
            at += 1;
        }
    }
    explain.inner = sql.get(tokens.get(at)?.start as usize..)?;
    Some(explain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_the_statement() {
        let of = |sql| explain_of(sql).map(|it| (it.command, it.inner, it.route, it.analyze, it.text)).unwrap();
        assert_eq!(of("EXPLAIN select 1"), ("EXPLAIN ".to_owned(), "select 1", false, false, true));
        assert_eq!(
            of("explain analyze verbose select (1)"),
            ("EXPLAIN analyze verbose ".to_owned(), "select (1)", false, true, true)
        );
        assert_eq!(of("explain (route) select 1"), ("EXPLAIN ".to_owned(), "select 1", true, false, true));
        assert_eq!(
            of("explain (costs off, ROUTE on, analyze false) select 1"),
            ("EXPLAIN (costs off, analyze false) ".to_owned(), "select 1", true, false, true)
        );
        assert!(!of("explain (format json) select 1").4);
        assert_eq!(explain_of("explain"), None);
    }
}
