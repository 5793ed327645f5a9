//! The command line: what can be asked of the program, and how that reads. What is done then is in the files below.

mod accounts;
mod archives;
mod figures;
mod first;
mod health;
mod log;
mod schema;
mod serve;
mod tokens;

use crate::config::{Config, Database, Flags, SETTINGS, Setting, default_file, duration};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand, ValueEnum};
use coop_core::{Error, ErrorKind};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Why the program ends with something else than 0.
pub(crate) enum Fault {
    /// It failed while running.
    Running(String),
    /// It was asked something that it cannot be.
    Usage(String),
    /// There is no database for it.
    Database(String),
    /// There is no place for it to listen.
    Listen(String),
}

impl Fault {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Usage(_) => 2,
            Self::Database(_) => 3,
            Self::Listen(_) => 4,
        }
    }

    /// This database cannot be opened.
    fn opening(database: &Database, error: &Error) -> Self {
        Self::Database(format!("the database {database} cannot be used: {error}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(words) | Self::Usage(words) | Self::Database(words) | Self::Listen(words) => {
                f.write_str(words)
            }
        }
    }
}

/// What was asked of the database and the engine was not done.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::BadRequest => Self::Usage(error.to_string()),
            _ => Self::Running(error.to_string()),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Verb {
    /// Run (default)
    Serve,
    /// Bring the database's schema up to date and exit
    Migrate {
        /// Print each step and whether it has been taken, and change nothing
        #[arg(long)]
        status: bool,
        /// Print the steps that would be taken, and change nothing
        #[arg(long, conflicts_with = "status")]
        dry_run: bool,
    },
    /// Make a token, or look at one
    Token {
        /// Print a token for this user
        #[arg(
            long,
            value_name = "NAME",
            required_unless_present = "check",
            conflicts_with = "check"
        )]
        user: Option<String>,
        /// How long it is good [default: as --token-ttl]
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "check")]
        ttl: Option<Duration>,
        /// No words, only the token
        #[arg(short, long)]
        quiet: bool,
        /// Print whose token this is and how long it is still good
        #[arg(long, value_name = "JWT")]
        check: Option<String>,
    },
    /// Look after accounts, also while a server runs
    User {
        #[command(subcommand)]
        what: UserVerb,
    },
    /// Print a room as lines of JSON, also while a server runs
    Export {
        /// Its id
        #[arg(long, value_name = "ID")]
        room: i64,
    },
    /// Make a room of what `export` prints, on SQLite while no server runs; who is not here gets an account without a password
    Import {
        /// Where it is, if not on the standard input
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Not one room, but everybody and everything of a database of the first system, into a new database:
        /// sqlite:FILE or postgres://USER@HOST/NAME
        #[arg(long, value_name = "URL", conflicts_with = "file")]
        from: Option<String>,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        what: ConfigVerb,
    },
    /// Ask a running server whether it is ready
    Health {
        /// Where it is, if not at --listen: http://HOST:PORT
        #[arg(long)]
        url: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum UserVerb {
    /// Make an account; without --password-stdin a password is made up and printed
    Add {
        name: String,
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        /// Read the password from the first line of the standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give somebody another password; without --password-stdin one is made up and printed
    Password {
        name: String,
        /// Read the password from the first line of the standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove an account, on SQLite while no server runs
    Delete {
        name: String,
        /// What becomes of the rooms they own [default: they must not own any]
        #[arg(long, value_name = "WHAT", value_enum)]
        rooms: Option<OwnedRooms>,
        /// Delete everything they have said, too
        #[arg(long)]
        purge: bool,
    },
}

/// What becomes of somebody's rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OwnedRooms {
    /// Each goes to the member who has been there longest, or is deleted if there is none
    HandOver,
    /// All are deleted
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum ConfigVerb {
    /// Say whether the server could start with it
    Check,
    /// Print a file that has every default
    Default,
}

/// Does what the command line of this process asks. A command line that makes no sense ends the process with 2.
pub(crate) async fn run() -> Result<(), Fault> {
    let matches = command().get_matches();
    let (verb, flags) = read(&matches).unwrap_or_else(|error| error.exit());
    if verb
        == (Verb::Config {
            what: ConfigVerb::Default,
        })
    {
        return print(default_file().trim_end());
    }
    let config = Config::find(flags).map_err(Fault::Usage)?;
    match verb {
        Verb::Serve => serve::serve(&config).await,
        Verb::Migrate {
            status: false,
            dry_run: false,
        } => schema::migrate(&config).await,
        Verb::Migrate { dry_run, .. } => schema::show(&config, dry_run).await,
        Verb::Token {
            user,
            ttl,
            quiet,
            check,
        } => match (user, check) {
            (Some(user), _) => tokens::make(&config, &user, ttl, quiet).await,
            (None, Some(token)) => tokens::check(&config, &token).await,
            (None, None) => Err(Fault::Usage("token: --user or --check is missing".to_owned())),
        },
        Verb::User { what } => match what {
            UserVerb::Add {
                name,
                email,
                password_stdin,
            } => accounts::add(&config, &name, &email, password_stdin).await,
            UserVerb::Password { name, password_stdin } => accounts::password(&config, &name, password_stdin).await,
            UserVerb::Delete { name, rooms, purge } => accounts::delete(&config, &name, rooms, purge).await,
        },
        Verb::Export { room } => archives::export(&config, room).await,
        Verb::Import { from: Some(from), .. } => first::take_over(&config, &from).await,
        Verb::Import { file, from: None } => archives::import(&config, file.as_deref()).await,
        Verb::Config { .. } => serve::check(&config).await,
        Verb::Health { url } => health::ask(&config, url.as_deref()).await,
    }
}

fn command() -> Command {
    let command = Command::new("coop-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A chat server in which people and bots share rooms")
        .after_help(
            "Without arguments it serves on http://127.0.0.1:8000 and keeps everything in ./coop.db.\n\
             A flag beats a variable, and a variable beats the file.",
        );
    let config = Arg::new("config").long("config").value_name("FILE").global(true);
    let config = config.help("A configuration file; `config default` prints one [variable: COOP_CONFIG]");
    Verb::augment_subcommands(command)
        .arg(config)
        .args(SETTINGS.iter().filter_map(argument))
        .subcommand_required(false)
        .arg_required_else_help(false)
}

fn argument(setting: &'static Setting) -> Option<Arg> {
    let argument = Arg::new(setting.key).long(setting.flag?).global(true);
    if setting.is_refused() {
        return Some(argument.hide(true));
    }
    let mut help = setting.words.to_owned();
    if setting.many {
        help.push_str(" (repeatable)");
    }
    if let Some(variable) = setting.variable {
        help.push_str(&format!(" [variable: {variable}]"));
    }
    help.push_str(&format!(" [default: {}]", setting.default.unwrap_or(setting.otherwise)));
    let argument = argument.help(help).value_name(setting.value);
    if let Some(says) = setting.switch {
        return Some(argument.action(ArgAction::Set).num_args(0).default_missing_value(says));
    }
    Some(match setting.many {
        true => argument.action(ArgAction::Append).value_delimiter(','),
        false => argument,
    })
}

fn read(matches: &ArgMatches) -> Result<(Verb, Flags), clap::Error> {
    let verb = match matches.subcommand_name() {
        Some(_) => Verb::from_arg_matches(matches)?,
        None => Verb::Serve,
    };
    let mut flags = Flags {
        config: matches.get_one::<String>("config").cloned(),
        ..Flags::default()
    };
    for setting in SETTINGS.iter().filter(|setting| setting.flag.is_some()) {
        if let Some(values) = matches.get_many::<String>(setting.key) {
            flags.values.insert(setting.key, values.cloned().collect());
        }
    }
    Ok((verb, flags))
}

/// Prints data: the standard output carries nothing else. Whoever reads it may have gone.
fn print(data: &str) -> Result<(), Fault> {
    use std::io::Write;
    let printed = writeln!(std::io::stdout(), "{data}");
    printed.map_err(|error| Fault::Running(format!("the standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<(Verb, Flags), clap::Error> {
        let all = std::iter::once("coop-server").chain(arguments.iter().copied());
        read(&command().try_get_matches_from(all)?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        assert_eq!(parsed(&[]).unwrap().0, Verb::Serve);
        // Flags may stand before and behind the verb.
        for arguments in [["--listen", "[::1]:0", "serve"], ["serve", "--listen", "[::1]:0"]] {
            let (verb, flags) = parsed(&arguments).unwrap();
            assert_eq!(
                (verb, &flags.values["listen"][..]),
                (Verb::Serve, &["[::1]:0".to_owned()][..])
            );
        }
        let (_, flags) = parsed(&["--no-web"]).unwrap();
        assert_eq!(flags.values["web"], ["off"]);
        let (_, flags) = parsed(&["--bot", "a=mock", "--bot", "b=mock,c=mock"]).unwrap();
        assert_eq!(flags.values["bots"], ["a=mock", "b=mock", "c=mock"]);
        for bad in [
            &["--jwt-secret", "x"][..],
            &["token"],
            &["token", "--user", "a", "--check", "b"],
            &["user", "add", "anna"],
            &["migrate", "--status", "--dry-run"],
            &["import", "room.jsonl", "--from", "sqlite:old.db"],
            &["sing"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
