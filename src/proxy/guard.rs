//! `guard`: rules that statements are held against before they run.
//!
//! A ruling is made once per template and looked up from then on; only rules that read the values of constants judge
//! each statement that has some. What is denied is denied before anything of its message is sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{self, GuardAction};
use crate::error::{Error, Result};
use crate::lint::{Objection, Rule, RuleSet, judge};
use crate::sql::template::{BindingKind, Scan, TemplateKey};
use crate::wire::message::{self, Failure};

/// Most rulings remembered before all are made anew.
const MAX_KNOWN: usize = 50_000;

/// What a guard says of a statement.
#[derive(Debug)]
pub struct Ruling {
    /// Why it does not get through.
    pub denial: Option<Failure>,
    /// What its client is told besides.
    comments: Vec<Objection>,
    /// The rules that found something, for the metrics.
    pub rules: Vec<(Arc<str>, GuardAction)>,
}

impl Ruling {
    /// Tells the client what was found in a statement that runs.
    pub fn comment(&self, to_client: &mut Vec<u8>) {
        for Objection { rule, message, suggestion } in &self.comments {
            message::notice(to_client, &format!("pgweir: rule {rule}: {message}"), suggestion);
        }
    }
}

/// Rulings by guard and template.
#[derive(Debug, Default)]
pub struct Rulings {
    known: HashMap<(u64, TemplateKey), Option<Arc<Ruling>>>,
}

impl Rulings {
    /// What `guard` says of a text of one statement or several.
    pub fn of(&mut self, guard: &Guard, scan: &Scan<'_>, sql: &[u8]) -> Option<Arc<Ruling>> {
        let constant = |kind| !matches!(kind, BindingKind::Param(_));
        let varies = guard.reads_constants && scan.bindings.iter().any(|binding| constant(binding.kind));
        if varies || !scan.complete {
            return guard.rule(sql, scan.standard_conforming_strings);
        }
        let key = (guard.id, scan.key);
        if let Some(ruling) = self.known.get(&key) {
            return ruling.clone();
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let ruling = guard.rule(sql, scan.standard_conforming_strings);
        self.known.insert(key, ruling.clone());
        ruling
    }
}

/// The rules that some users' statements are held against.
#[derive(Debug)]
pub struct Guard {
    /// Its number, unique in this process.
    pub id: u64,
    rules: Vec<Rule>,
    actions: HashMap<String, GuardAction>,
    reads_constants: bool,
    /// For sessions that share their plans.
    shared: Mutex<Rulings>,
}

impl Guard {
    fn new(parts: &[&Part]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (mut rules, mut actions): (Vec<Rule>, HashMap<String, GuardAction>) = Default::default();
        for part in parts {
            for rule in &part.rules {
                let action = actions.entry(rule.id.clone()).or_insert_with(|| {
                    rules.push(rule.clone());
                    part.action
                });
                if part.action == GuardAction::Deny {
                    *action = GuardAction::Deny;
                }
            }
        }
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            reads_constants: rules.iter().any(Rule::reads_constants),
            rules,
            actions,
            shared: Mutex::default(),
        }
    }

    /// What it says of a text, looked up among what all sessions know.
    pub fn ruling(&self, scan: &Scan<'_>, sql: &[u8]) -> Option<Arc<Ruling>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).of(self, scan, sql)
    }

    fn rule(&self, sql: &[u8], conforming: bool) -> Option<Arc<Ruling>> {
        let denies = self.actions.values().any(|action| *action == GuardAction::Deny);
        if !conforming && denies && sql.contains(&b'\\') {
            let what = "denied by the guard: where strings end cannot be told";
            let denial = Failure::error("42000", what)
                .detail("There is a backslash in the text, and standard_conforming_strings is off.")
                .hint("Set standard_conforming_strings to on, and write E'..' where escapes are meant.");
            return Some(Arc::new(Ruling { denial: Some(denial), comments: Vec::new(), rules: Vec::new() }));
        }
        let objections = judge(&String::from_utf8_lossy(sql), &self.rules);
        if objections.is_empty() {
            return None;
        }
        let action = |objection: &Objection| self.actions.get(&objection.rule).copied().unwrap_or(GuardAction::Deny);
        let rules = objections.iter().map(|it| (Arc::from(it.rule.as_str()), action(it))).collect();
        let (denied, comments): (Vec<_>, Vec<_>) =
            objections.into_iter().partition(|objection| action(objection) == GuardAction::Deny);
        let denial = denied.into_iter().next().map(|Objection { rule, message, suggestion }| {
            Failure::error("42000", format!("denied by rule {rule}: {message}"))
                .detail("The proxy's configuration guards this database against such statements; it was not run.")
                .hint(suggestion)
        });
        Some(Arc::new(Ruling { denial, comments, rules }))
    }
}

/// One entry of the setting.
#[derive(Debug)]
struct Part {
    users: Vec<String>,
    action: GuardAction,
    rules: Vec<Rule>,
}

/// The guards of a database.
#[derive(Debug, Default)]
pub struct Guards {
    parts: Vec<Part>,
    /// By the parts that they are made of.
    made: Mutex<HashMap<Vec<usize>, Arc<Guard>>>,
}

impl Guards {
    /// The guards that a database's settings ask for.
    ///
    /// # Errors
    /// A rule is not there, or needs more than a statement's text.
    pub fn new(database: &str, settings: &[config::Guard]) -> Result<Self> {
        if settings.is_empty() {
            return Ok(Self::default());
        }
        let known = RuleSet::built_in()?;
        let part = |(index, guard): (usize, &config::Guard)| {
            let wrong = |what: String, hint: &str| {
                Error::config(what).at(format!("databases.{database}.guard, entry {}", index + 1)).hint(hint)
            };
            let rule = |name: &String| match known.get(name) {
                None => Err(wrong(format!("there is no rule `{name}`"), "`pgweir rules list` has their names")),
                Some(rule) if !rule.judges_text() => {
                    let what = format!("the rule `{name}` finds nothing in a statement's text alone");
                    Err(wrong(
                        what,
                        "use rules with the evidence `syntax`; `SHOW FINDINGS` and `pgweir lint` tell of the others",
                    ))
                }
                Some(rule) => Ok(rule.clone()),
            };
            let rules = guard.rules.iter().map(rule).collect::<Result<_>>()?;
            Ok(Part { users: guard.users.clone(), action: guard.action, rules })
        };
        let parts = settings.iter().enumerate().map(part).collect::<Result<_>>()?;
        Ok(Self { parts, made: Mutex::default() })
    }

    /// The guard of a user's statements, if there is one.
    pub fn of(&self, user: &str) -> Option<Arc<Guard>> {
        let concerns = |part: &Part| part.users.is_empty() || part.users.iter().any(|name| name == user);
        let mine: Vec<usize> =
            self.parts.iter().enumerate().filter(|(_, part)| concerns(part)).map(|(index, _)| index).collect();
        if mine.is_empty() {
            return None;
        }
        let parts: Vec<&Part> = self.parts.iter().filter(|part| concerns(part)).collect();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        Some(made.entry(mine).or_insert_with(|| Arc::new(Guard::new(&parts))).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::LexOptions;
    use crate::sql::template::Scanner;

    fn guards(entries: &[(&[&str], GuardAction, &[&str])]) -> Result<Guards> {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let settings: Vec<config::Guard> = entries
            .iter()
            .map(|(rules, action, users)| config::Guard { rules: names(rules), action: *action, users: names(users) })
            .collect();
        Guards::new("app", &settings)
    }

    fn denied(guard: &Guard, sql: &str) -> Option<String> {
        let mut scanner = Scanner::new(LexOptions::default());
        let ruling = guard.ruling(&scanner.scan(sql.as_bytes()), sql.as_bytes())?;
        Some(ruling.denial.as_ref().map(|denial| denial.message.clone()).unwrap_or_default())
    }

    #[test]
    fn each_user_has_the_entries_that_concern_it_and_deny_wins() {
        use GuardAction::{Deny, Notice};
        let guards = guards(&[
            (&["delete-without-where", "select-star"], Notice, &[]),
            (&["delete-without-where"], Deny, &["app", "batch"]),
        ])
        .unwrap();
        let (app, boss) = (guards.of("app").unwrap(), guards.of("boss").unwrap());
        assert!(Arc::ptr_eq(&app, &guards.of("batch").unwrap()) && app.id != boss.id);
        assert!(denied(&app, "delete from t").unwrap().contains("delete-without-where"));
        assert_eq!(denied(&app, "select * from t where id = 1").as_deref(), Some(""));
        assert_eq!(denied(&boss, "delete from t").as_deref(), Some(""));
        assert_eq!(denied(&boss, "delete from t where id = 1"), None);
        assert!(Guards::default().of("app").is_none());
    }

    #[test]
    fn a_ruling_of_one_constant_is_none_of_another() {
        let guards = guards(&[(&["leading-wildcard-like"], GuardAction::Deny, &[])]).unwrap();
        let guard = guards.of("app").unwrap();
        for _ in 0..2 {
            assert_eq!(denied(&guard, "select id from t where name like 'a%'"), None);
            assert!(denied(&guard, "select id from t where name like '%a'").is_some());
        }
    }

    #[test]
    fn what_may_hide_behind_a_backslash_is_denied() {
        let guards = guards(&[(&["delete-without-where"], GuardAction::Deny, &[])]).unwrap();
        let guard = guards.of("app").unwrap();
        let options = LexOptions { standard_conforming_strings: false };
        let sql = br"select 'a\'' ; delete from t --'";
        let mut scanner = Scanner::new(options);
        let ruling = guard.ruling(&scanner.scan(sql), sql).unwrap();
        assert_eq!(ruling.denial.as_ref().unwrap().code, "42000");
        assert!(guard.ruling(&scanner.scan(b"select 'a'"), b"select 'a'").is_none());
    }

    #[test]
    fn rules_that_cannot_guard_are_refused() {
        for (rule, word) in [("delet-without-where", "no rule"), ("n-plus-one", "text alone")] {
            let error = guards(&[(&[rule], GuardAction::Deny, &[])]).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("databases.app.guard"), "{error}");
        }
    }
}
