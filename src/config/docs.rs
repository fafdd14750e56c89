//! The settings' documentation, written from their definitions.

use super::define::{FromNode, Group, SettingDefault};
use super::settings::Config;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `pgweir check --print-settings` from the definitions in src/config/: change them there. -->

`pgweir check -c pgweir.yaml` says what is wrong with a file: line, column, and what to write instead.
A setting that this version does not execute is refused, never ignored.

A file as it may look:

```yaml
listen: 127.0.0.1:6432
users:
  app: {password: \"env:APP_PASSWORD\"}
databases:
  blog:
    primary: \"postgres://app:secret@10.0.0.9/blog?sslmode=verify-full\"
  shop:
    shards:
      - {name: a, primary: \"postgres://app@10.0.0.1/shop\"}
      - {name: b, primary: \"postgres://app@10.0.0.3/shop\"}
    sharding:
      tables:
        customers: {key: id}
        orders: {key: customer_id}
      reference: [countries]
```

A server's URL takes the parameters `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`; `prefer` unless given),
`sslrootcert` (a PEM file) and `password`. A password in a URL may also be `env:NAME` or `file:PATH`
(`?password=file:/run/secrets/shop`).

Table and column names are written as PostgreSQL stores them: in lower case unless they were created in quotes.

Which bucket lies on which shard follows from the number of buckets and the shards' names and order alone, until the
map can be stored in the database: renaming a shard, changing the order, or adding one changes where rows are looked for.
";

/// All groups of settings, the top one first.
pub fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    Config::document("", &mut groups);
    groups
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for group in groups() {
        let title = if group.path.is_empty() { "The file".to_owned() } else { format!("`{}`", group.path) };
        text.push_str(&format!(
            "\n## {title}\n\n{}\n\n| setting | takes | default | |\n|---|---|---|---|\n",
            group.doc
        ));
        for setting in &group.settings {
            let default = match setting.default {
                SettingDefault::Required => "**required**".to_owned(),
                SettingDefault::Absent => String::new(),
                SettingDefault::Text("{}") => "see below".to_owned(),
                SettingDefault::Text(text) => format!("`{text}`"),
            };
            let doc = setting.doc.replace('|', "\\|").replace("\n\n", "<br>");
            text.push_str(&format!(
                "| `{}` | {} | {default} | {doc} |\n",
                setting.name,
                setting.what.replace('|', "\\|")
            ));
        }
    }
    text
}
