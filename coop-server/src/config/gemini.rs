//! Where Gemini is asked, and with which key.

use super::settings::{Environment, Layers};
use coop_bots::GeminiSettings;
use coop_bots::gemini::{DEFAULT_API_VERSION, DEFAULT_BASE_URL, DEFAULT_MODEL};
use std::fmt;
use std::path::Path;

/// A key, which is not shown.
#[derive(Clone, PartialEq, Eq)]
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
}

/// What all bots of this kind share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gemini {
    key: Option<Key>,
    model: String,
    base_url: String,
    api_version: String,
}

impl Gemini {
    pub(super) fn of(layers: &Layers, environment: &Environment) -> Result<Self, String> {
        let text = |key: &str, default: &str| {
            let said = layers.optional(key, |text| Ok(text.to_owned()))?;
            Ok::<_, String>(said.unwrap_or_else(|| default.to_owned()))
        };
        Ok(Self {
            key: key(layers, environment)?.map(Key),
            model: text("gemini_model", DEFAULT_MODEL)?,
            base_url: text("gemini_base_url", DEFAULT_BASE_URL)?,
            api_version: text("gemini_api_version", DEFAULT_API_VERSION)?,
        })
    }

    /// Whether anything can be asked.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// How a bot with this model asks, if there is a key.
    pub(crate) fn settings(&self, model: Option<&str>) -> Option<GeminiSettings> {
        let mut settings = GeminiSettings::new(self.key.as_ref()?.0.as_str());
        model.unwrap_or(&self.model).clone_into(&mut settings.model);
        self.base_url.clone_into(&mut settings.base_url);
        self.api_version.clone_into(&mut settings.api_version);
        Some(settings)
    }
}

/// Ours before the one that other programs use too, and the key itself before a file with it.
fn key(layers: &Layers, environment: &Environment) -> Result<Option<String>, String> {
    let variable = |name: &str| {
        environment
            .get(name)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    };
    if let Some(key) = variable("COOP_GEMINI_API_KEY") {
        return Ok(Some(key.to_owned()));
    }
    if let Some(key) = layers.optional("gemini_api_key_file", |path| read(Path::new(path)))? {
        return Ok(Some(key));
    }
    if let Some(key) = variable("GEMINI_API_KEY") {
        return Ok(Some(key.to_owned()));
    }
    let file = variable("GEMINI_API_KEY_FILE").map(|path| read(Path::new(path)));
    file.transpose()
        .map_err(|words| format!("GEMINI_API_KEY_FILE: {words}"))
}

fn read(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{} holds no key", path.display())),
        key => Ok(key.to_owned()),
    }
}
