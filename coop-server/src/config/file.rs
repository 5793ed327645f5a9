//! The configuration file: TOML with the keys of [`SETTINGS`] and a table of limits. Whatever it does not know it
//! refuses, naming the line and what was probably meant.

use super::settings::{LIMITS, SETTINGS, Said};
use coop_server::Limits;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// By key.
    pub(super) said: BTreeMap<&'static str, Said>,
    /// Limits by name.
    pub(super) limits: Vec<(String, Said)>,
}

/// So alike must a known key be to be meant.
const ALIKE: f64 = 0.75;
/// A larger file is not a configuration.
const MAX_BYTES: u64 = 1024 * 1024;

pub(super) fn read(path: &Path) -> Result<File, String> {
    let text = text_of(path)?;
    Source::new(path, &text).file()
}

/// A file that holds nothing but limits.
pub(super) fn read_limits(path: &Path) -> Result<Vec<(String, Said)>, String> {
    let text = text_of(path)?;
    let source = Source::new(path, &text);
    source.limits(source.table()?.get_ref())
}

fn text_of(path: &Path) -> Result<String, String> {
    let words = |error: std::io::Error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(words)?.len() > MAX_BYTES {
        return Err(format!("{}: this is too large to be a configuration", path.display()));
    }
    std::fs::read_to_string(path).map_err(words)
}

/// A text and what it is called.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    fn at(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        format!("{}:{}", self.path.display(), before.matches('\n').count() + 1)
    }

    fn table(&self) -> Result<Spanned<DeTable<'a>>, String> {
        DeTable::parse(self.text).map_err(|error| {
            let at = self.at(error.span().unwrap_or(0..0));
            format!("{at}: {}", error.message())
        })
    }

    fn file(&self) -> Result<File, String> {
        let mut file = File::default();
        for (key, value) in self.table()?.get_ref() {
            let at = self.at(key.span());
            let name = key.get_ref().as_ref();
            match (SETTINGS.iter().find(|setting| setting.key == name), value.get_ref()) {
                (Some(setting), DeValue::Table(table)) if setting.key == LIMITS => file.limits = self.limits(table)?,
                (Some(setting), _) if setting.key == LIMITS => {
                    return Err(format!("{at}: in this file `{LIMITS}` is a table"));
                }
                (Some(setting), value) => {
                    let values = texts(value, setting.many).map_err(|words| format!("{at}: {name} {words}"))?;
                    let by = format!("{at}: {name}");
                    file.said.insert(setting.key, Said { values, by });
                }
                (None, _) => return Err(format!("{at}: {}", unknown(name))),
            }
        }
        Ok(file)
    }

    fn limits(&self, table: &DeTable<'_>) -> Result<Vec<(String, Said)>, String> {
        let limit = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let (by, name) = (self.at(key.span()), AsRef::<str>::as_ref(key.get_ref()).to_owned());
            let values = texts(value.get_ref(), false).map_err(|words| format!("{by}: {name} {words}"))?;
            Ok((name, Said { values, by }))
        };
        table.iter().map(|(key, value)| limit((key, value))).collect()
    }
}

fn texts(value: &DeValue<'_>, many: bool) -> Result<Vec<String>, &'static str> {
    match (value, many) {
        (DeValue::Array(items), true) => {
            let item = |item: &Spanned<DeValue<'_>>| one(item.get_ref()).ok_or("is a list of texts");
            items.iter().map(item).collect()
        }
        (_, true) => Err("is a list of texts"),
        (value, false) => one(value).map(|text| vec![text]).ok_or("is one text or number"),
    }
}

fn one(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn unknown(name: &str) -> String {
    if matches!(name, "jwt_secret" | "gemini_api_key") {
        return format!("a secret has no place in this file; `{name}_file` names the one that holds it");
    }
    let known = SETTINGS.iter().filter(|setting| !setting.is_refused());
    let known = known.map(|setting| (strsim::jaro_winkler(name, setting.key), setting.key));
    let nearest = known.max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest.filter(|(alike, _)| *alike >= ALIKE) {
        Some((_, key)) => format!("unknown key `{name}`; did you mean `{key}`?"),
        None => format!("unknown key `{name}`; `coop-server config default` prints all there are"),
    }
}

/// A file that says what is so anyway, with words to each key.
pub(crate) fn default_file() -> String {
    let mut text = "# The configuration of coop-server. Everything here is a default, and any line may be left out.\n\
                    # Variables of the environment beat this file, and flags beat both.\n"
        .to_owned();
    let said = SETTINGS
        .iter()
        .filter(|setting| !setting.is_refused() && setting.key != LIMITS);
    for setting in said {
        text.push_str(&format!("\n# {}.\n", setting.words));
        if let Some(variable) = setting.variable {
            text.push_str(&format!("# Variable: {variable}.\n"));
        }
        text.push_str(&match (setting.default, setting.many) {
            (Some(value), false) => format!("{} = {value:?}\n", setting.key),
            (Some(value), true) => format!("{} = [{value:?}]\n", setting.key),
            (None, many) => {
                let example = if many { "[\"…\"]" } else { "\"…\"" };
                format!("# Without it: {}.\n# {} = {example}\n", setting.otherwise, setting.key)
            }
        });
    }
    text.push_str("\n# How much anybody may ask. Variables: COOP_LIMIT_<NAME>.\n[limits]\n");
    for (name, value) in Limits::default().iter() {
        let words = Limits::words(name).unwrap_or_default().trim();
        text.push_str(&format!("# {words}\n{name} = {value:?}\n"));
    }
    text
}
