use super::*;
use std::io::Write;

fn flags(values: &[(&'static str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (key, value) in values {
        flags.values.entry(*key).or_default().push((*value).to_owned());
    }
    flags
}

fn environment(values: &[(&str, &str)]) -> Environment {
    let pairs = values.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn said(by_flag: &[(&'static str, &str)], by_variable: &[(&str, &str)]) -> Result<Config, String> {
    Config::of(flags(by_flag), environment(by_variable))
}

/// What a file with this text says, beaten by these flags and variables.
fn with_file(text: &str, by_flag: &[(&'static str, &str)], by_variable: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut flags = flags(by_flag);
    flags.config = Some(file.path().to_str().unwrap().to_owned());
    let found = Config::of(flags, environment(by_variable));
    let path = format!("{}", file.path().display());
    found.map_err(|words| words.replace(&path, "coop.toml"))
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = "token_ttl = \"1h\"\nlisten = \"127.0.0.1:1\"\nbots = [\"a=mock\", \"b=mock\"]\n\
                registration = \"closed\"\ncors_origins = []\nshutdown_grace = 7\n";
    let (flag, variable) = (
        [("token_ttl", "3h"), ("bots", "c=mock")],
        [
            ("COOP_TOKEN_TTL", "2h"),
            ("COOP_LISTEN", "127.0.0.1:2"),
            ("COOP_BOTS", "d=mock,e=mock"),
            ("COOP_REGISTRATION", ""),
        ],
    );
    let names = |config: &Config| -> Vec<String> { config.bots.iter().map(|bot| bot.name.clone()).collect() };
    let seconds = |config: &Config| (config.token_ttl.as_secs(), config.shutdown_grace.as_secs());

    let all = with_file(file, &flag, &variable).unwrap();
    assert_eq!((seconds(&all), all.listen.port()), ((3 * 3_600, 7), 2));
    assert_eq!((names(&all), all.registration), (vec!["c".to_owned()], false));
    let without_flags = with_file(file, &[], &variable).unwrap();
    assert_eq!(seconds(&without_flags), (2 * 3_600, 7));
    assert_eq!(names(&without_flags), ["d", "e"]);
    let file_alone = with_file(file, &[], &[]).unwrap();
    assert_eq!((seconds(&file_alone), file_alone.listen.port()), ((3_600, 7), 1));
    assert_eq!(names(&file_alone), ["a", "b"]);
    assert_eq!(
        file_alone.cors_origins, [""; 0],
        "an empty list is none, not the default"
    );
    let nothing = said(&[], &[]).unwrap();
    assert_eq!((seconds(&nothing), nothing.listen.port()), ((24 * 3_600, 10), 8000));
    assert_eq!(
        (names(&nothing), nothing.registration),
        (vec!["scribe".to_owned()], true)
    );
    assert_eq!(nothing.turn_timeout, Duration::from_secs(600));
    assert!(!nothing.budgets.limit_anything());
    let budgets = with_file(
        "room_tokens_per_day = 500_000",
        &[("user_tokens_per_day", "20000")],
        &[],
    );
    let budgets = budgets.unwrap().budgets;
    let expected = (Some(20_000), Some(500_000));
    assert_eq!((budgets.user_tokens_per_day, budgets.room_tokens_per_day), expected);
}

#[test]
fn who_said_what_is_wrong_is_told() {
    for (found, expected) in [
        (
            said(&[("token_ttl", "soon")], &[]),
            "--token-ttl: a time is a number with ms, s, m, h or d",
        ),
        (
            said(&[], &[("COOP_BOTS", "a=mock,b=gpt")]),
            "COOP_BOTS: there is no kind of bot called gpt; there are: gemini, scribe, mock",
        ),
        (said(&[("bots", "a=mock:large")], &[]), "--bot: a mock has no model"),
        (
            said(&[("bots", "a=gemini")], &[]),
            "--bot: gemini needs a key: GEMINI_API_KEY, or GEMINI_API_KEY_FILE with a file that holds it",
        ),
        (
            with_file("gemini_api_key = \"hush\"", &[], &[]),
            "coop.toml:1: a secret has no place in this file; `gemini_api_key_file` names the one that holds it",
        ),
        (
            said(&[("redis", "redis://user:password@host")], &[]),
            "--redis: it joins servers on one PostgreSQL database, and this is none",
        ),
        (
            said(
                &[
                    ("redis", "http://user:password@host"),
                    ("database", "postgres://host/x"),
                ],
                &[],
            ),
            "--redis: this is not redis://HOST:PORT, or rediss:// for TLS",
        ),
        (
            said(&[], &[("COOP_DATABASE_URL", "mysql://user:password@host/x")]),
            "COOP_DATABASE_URL: mysql is not supported; it is sqlite:FILE, sqlite::memory: or postgres://…",
        ),
        (
            with_file("\nlog_format = \"xml\"", &[], &[]),
            "coop.toml:2: log_format: it is auto, text or json, not xml",
        ),
        (
            with_file("\n\nlissten = \"x\"", &[], &[]),
            "coop.toml:3: unknown key `lissten`; did you mean `listen`?",
        ),
        (
            with_file("cors_origin = []", &[], &[]),
            "coop.toml:1: unknown key `cors_origin`; did you mean `cors_origins`?",
        ),
        (
            with_file("xyzzy = 1", &[], &[]),
            "coop.toml:1: unknown key `xyzzy`; `coop-server config default` prints all there are",
        ),
        (
            with_file("jwt_secret = \"hush\"", &[], &[]),
            "coop.toml:1: a secret has no place in this file; `jwt_secret_file` names the one that holds it",
        ),
        (
            with_file("bots = \"a=mock\"", &[], &[]),
            "coop.toml:1: bots is a list of texts",
        ),
        (
            with_file("listen = [\"a\"]", &[], &[]),
            "coop.toml:1: listen is one text or number",
        ),
        (
            with_file("limits = \"off\"", &[], &[]),
            "coop.toml:1: in this file `limits` is a table",
        ),
        (
            said(&[], &[("COOP_USER_TOKENS_PER_DAY", "lots")]),
            "COOP_USER_TOKENS_PER_DAY: a number of tokens is digits, not lots",
        ),
        (
            with_file("room_tokens_per_day = -1", &[], &[]),
            "coop.toml:1: room_tokens_per_day: a number of tokens is digits, not -1",
        ),
        (
            said(&[("limits", "off"), ("listen", "0.0.0.0:80")], &[]),
            "limits can be off only if the server listens on loopback",
        ),
    ] {
        assert_eq!(found.unwrap_err(), expected);
    }
    let error = with_file("listen = \n", &[], &[]).unwrap_err();
    assert!(error.starts_with("coop.toml:1: "), "{error}");
    let missing = Flags {
        config: Some("/nowhere/coop.toml".to_owned()),
        ..Flags::default()
    };
    let error = Config::of(missing, Environment::new()).unwrap_err();
    assert!(error.starts_with("/nowhere/coop.toml: "), "{error}");
}

#[test]
fn a_single_limits_variable_beats_the_file_of_limits_beats_the_configuration() {
    let configuration = "[limits]\nsockets_per_user = 3\n";
    let sockets = |found: Result<Config, String>| found.unwrap().limits.sockets_per_user;
    assert_eq!(sockets(with_file(configuration, &[], &[])), 3);
    let folder = tempfile::tempdir().unwrap();
    let limits = folder.path().join("limits.toml");
    std::fs::write(&limits, "sockets_per_user = \"4\"\n").unwrap();
    let limits = limits.to_str().unwrap();
    assert_eq!(sockets(with_file(configuration, &[("limits", limits)], &[])), 4);
    let variable = ("COOP_LIMIT_SOCKETS_PER_USER", "5");
    assert_eq!(sockets(with_file(configuration, &[("limits", limits)], &[variable])), 5);
    assert_eq!(
        sockets(with_file(configuration, &[], &[("COOP_LIMITS", "off")])),
        u32::MAX
    );
    assert_eq!(
        sockets(with_file(configuration, &[], &[("COOP_LIMITS", "off"), variable])),
        5
    );
    assert!(said(&[], &[("COOP_LIMITS", "off")]).unwrap().limits_off);

    let error = with_file("\n[limits]\nsocket_per_user = 3\n", &[], &[]).unwrap_err();
    assert!(
        error.starts_with("coop.toml:3: ") && error.contains("sockets_per_user"),
        "{error}"
    );
    let error = said(&[], &[("COOP_LIMIT_SOCKETS_PER_USER", "many")]).unwrap_err();
    assert!(error.starts_with("COOP_LIMIT_SOCKETS_PER_USER: "), "{error}");
}

#[test]
fn the_default_file_says_every_key_and_changes_nothing() {
    let text = default_file();
    assert_eq!(with_file(&text, &[], &[]).unwrap(), said(&[], &[]).unwrap());
    let keys = SETTINGS.iter().filter(|setting| !setting.is_refused());
    for key in keys.map(|setting| setting.key).filter(|key| *key != "limits") {
        assert!(
            text.contains(&format!("\n{key} = ")) || text.contains(&format!("\n# {key} = ")),
            "{key}"
        );
    }
    for (name, _) in Limits::default().iter() {
        assert!(text.contains(&format!("\n{name} = ")), "{name}");
    }
}

#[test]
fn times() {
    assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
    assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
    for bad in [
        "",
        "h",
        "-1s",
        "1y",
        "1.5h",
        "99999999999999999999d",
        "18446744073709551615d",
    ] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn with_a_key_there_is_gemini() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), " from the file\n").unwrap();
    let path = file.path().to_str().unwrap();
    for (variables, has) in [
        (&[][..], false),
        (&[("GEMINI_API_KEY", " ")], false),
        (&[("GEMINI_API_KEY", "hush")], true),
        (&[("COOP_GEMINI_API_KEY", "hush")], true),
        (&[("GEMINI_API_KEY_FILE", path)], true),
        (&[("COOP_GEMINI_API_KEY_FILE", path)], true),
    ] {
        let found = said(&[], variables).unwrap();
        let names: Vec<_> = found.bots.iter().map(|bot| bot.name.as_str()).collect();
        let expected = if has { &["gemini", "scribe"][..] } else { &["scribe"] };
        assert_eq!(
            (names.as_slice(), found.gemini.settings(None).is_some()),
            (expected, has),
            "{variables:?}"
        );
        assert!(!format!("{found:?}").contains("hush"));
    }
    let variables = [
        ("GEMINI_API_KEY", "hush"),
        ("COOP_GEMINI_MODEL", "usual"),
        ("COOP_GEMINI_API_VERSION", "v1"),
    ];
    let found = said(&[("bots", "a=gemini"), ("bots", "b=gemini:other")], &variables).unwrap();
    let kinds: Vec<_> = found.bots.iter().map(|bot| bot.kind.clone()).collect();
    assert_eq!(
        kinds,
        [BotKind::Gemini(None), BotKind::Gemini(Some("other".to_owned()))]
    );
    let models = [None, Some("other")].map(|model| found.gemini.settings(model).unwrap().model);
    assert_eq!(models, ["usual", "other"]);
    assert_eq!(found.gemini.settings(None).unwrap().api_version, "v1");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let words = said(&[], &[("GEMINI_API_KEY_FILE", empty.path().to_str().unwrap())]).unwrap_err();
    assert!(
        words.starts_with("GEMINI_API_KEY_FILE: ") && words.ends_with("holds no key"),
        "{words}"
    );
}

#[test]
fn databases() {
    assert_eq!(database("sqlite:coop.db"), Ok(Database::File("coop.db".into())));
    assert_eq!(
        database("sqlite:///tmp/coop.db"),
        Ok(Database::File("/tmp/coop.db".into()))
    );
    assert_eq!(database("sqlite::memory:"), Ok(Database::Memory));
    assert!(database("sqlite:").is_err());
    let kept = database("postgres://anne:secret@db.example:5433/coop?sslmode=verify-full&password=secret").unwrap();
    assert_eq!(kept.to_string(), "postgres://db.example:5433/coop");
    assert!(!format!("{kept:?}").contains("secret"));
    assert!(kept.address().contains("secret"), "it is used as it was given");
    assert!(database("secret").is_err_and(|words| !words.contains("secret")));
}

#[test]
fn pages_on_loopback_may_call_by_default_and_no_others() {
    let origins = |by_flag: &[(&'static str, &str)], by_variable: &[(&str, &str)]| {
        said(by_flag, by_variable).unwrap().cors_origins
    };
    assert!(origins(&[], &[]).contains(&"http://127.0.0.1:3001".to_owned()));
    assert_eq!(origins(&[("listen", "0.0.0.0:80")], &[]), [""; 0]);
    assert_eq!(origins(&[], &[("COOP_CORS_ORIGINS", "")]), [""; 0]);
    let some = origins(&[], &[("COOP_CORS_ORIGINS", "https://a.example, https://b.example")]);
    assert_eq!(some, ["https://a.example", "https://b.example"]);
}
