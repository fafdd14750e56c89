//! The rules that come with the program, and the machinery around them.

use super::*;

#[test]
fn every_example_of_every_rule_comes_out_as_the_rule_says() {
    let rules = RuleSet::built_in().expect("the rules are well formed");
    let failures: Vec<Failure> = rules.iter().flat_map(test_rule).collect();
    let lines: Vec<String> = failures.iter().map(|it| format!("{}: {}\n    {}", it.rule, it.what, it.sql)).collect();
    assert!(failures.is_empty(), "{} examples fail:\n{}", failures.len(), lines.join("\n"));
}

#[test]
fn a_rule_that_is_wrong_says_where_and_what() {
    let cases = [
        ("id: x\n", "missing"),
        (
            "id: x\ngroup: risk\nseverity: error\ntitle: t\nevidence: [syntax]\nwhy: w\ninstead: i\ncheck: no-such\nbad: []\ngood: []\n",
            "no check named no-such",
        ),
        ("id: x\ngroup: risk\nseverity: fatal\n", "fatal"),
    ];
    for (text, expected) in cases {
        let error = Rule::parse(text, "rules/x.yaml").expect_err(text);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn the_documentation_is_up_to_date() {
    let rules = RuleSet::built_in().expect("the rules are well formed");
    let written =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md")).expect("docs/rules.md");
    assert!(written == render(&rules), "docs/rules.md is stale: run `pgweir rules docs -o docs/rules.md`");
}

#[test]
fn every_rule_on_the_page_about_writing_rules_works() {
    let page = include_str!("../../docs/writing-rules.md");
    let rules: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(rule, _)| rule).collect();
    assert_eq!(rules.len(), 7, "the page's rules are found");
    for text in rules {
        let rule = Rule::parse(text, "docs/writing-rules.md").expect("a rule");
        assert_eq!(test_rule(&rule), [], "{}", rule.id);
    }
}

#[test]
fn the_page_about_writing_rules_names_every_word() {
    let page = include_str!("../../docs/writing-rules.md");
    let source = include_str!("matching.rs");
    // The fields of both structures, and the sides.
    let fields =
        source.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": ")).map(|(name, _)| name);
    for field in fields.map(|name| if name == "where_clause" { "where" } else { name }) {
        assert!(page.contains(&format!("`{field}")), "match: {field} is not on the page");
    }
}
