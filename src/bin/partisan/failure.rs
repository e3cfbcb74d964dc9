//! What went wrong, what to do about it, and the exit code that says so.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use partisan::connection::establish::EstablishError;
use partisan::distribution::dial::DialError;
use partisan::distribution::names::ResolveError;
use partisan::distribution::tls::TlsError;
use partisan::wire::handshake::{Awaited, HandshakeError};
use partisan::{CallError, ConnectError, EpmdError, RpcError, StartError};
use serde_json::json;

use crate::json::json as to_json;

/// Why a command failed. Scripts tell causes apart by exit code, and by name in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The command line or the file makes no sense. Clap's own errors have this code, too.
    Usage,
    /// No EPMD answers at the node's host.
    NoEpmd,
    /// EPMD does not know the name.
    NotRunning,
    /// The host cannot be found or reached, or nobody listens there.
    Unreachable,
    /// The cookies differ.
    WrongCookie,
    /// The peer does not let this node in.
    Refused,
    /// One end lacks what the other one demands of the protocol.
    FlagsMissing,
    /// No answer in time.
    Timeout,
    /// The function that was called has raised an exception.
    Raised,
    /// Another node answers than the one that was named.
    WrongName,
    /// TLS does not come up.
    Tls,
    /// The node runs no Partisan.
    NoPartisan,
    /// Anything else.
    Other,
}

const ALL: [(Cause, u8, &str, &str); 13] = [
    (Cause::Other, 1, "other", ""),
    (Cause::Usage, 2, "usage", "see --help"),
    (
        Cause::NoEpmd,
        3,
        "no_epmd",
        "start it with `epmd -daemon`, or give its port (--epmd-port), or the node's own address (--at)",
    ),
    (
        Cause::NotRunning,
        4,
        "not_running",
        "`partisan names` lists the nodes that EPMD knows; check the part before the @",
    ),
    (
        Cause::Unreachable,
        5,
        "unreachable",
        "check the host's name and the firewall; the node's own port must be open, too",
    ),
    (
        Cause::WrongCookie,
        6,
        "wrong_cookie",
        "give the cookie that erlang:get_cookie() tells on the other node",
    ),
    (
        Cause::Refused,
        7,
        "refused",
        "the other node has a list of nodes that it lets in (net_kernel:allow/1), or knows another \
         node of this name",
    ),
    (
        Cause::FlagsMissing,
        8,
        "flags_missing",
        "the other node is too old or no Erlang node; OTP 25 and newer will do",
    ),
    (
        Cause::Timeout,
        9,
        "timeout",
        "the other node is busy or stopped; --timeout gives it more time",
    ),
    (Cause::Raised, 10, "raised", ""),
    (
        Cause::WrongName,
        11,
        "wrong_name",
        "name it as it names itself, by erlang:node(): the host, too, long or short as there",
    ),
    (
        Cause::Tls,
        12,
        "tls",
        "with -proto_dist inet_tls on the other node give --tls-ca (and --tls-cert, --tls-key if it asks); else none",
    ),
    (
        Cause::NoPartisan,
        13,
        "no_partisan",
        "start the application partisan there, or ask a node that runs it",
    ),
];

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 other failure, 2 usage, 3 no EPMD, 4 not running, 5 unreachable,
6 wrong cookie, 7 refused, 8 flags missing, 9 timeout, 10 the called function raised,
11 wrong name, 12 TLS, 13 no Partisan";

impl Cause {
    fn row(self) -> (u8, &'static str, &'static str) {
        let found = ALL.iter().find(|(cause, ..)| *cause == self);
        found.map_or((1, "other", ""), |(_, code, name, advice)| {
            (*code, *name, *advice)
        })
    }
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: Cause,
    message: String,
    /// For JSON: an exception's class, reason and stack.
    raised: Option<serde_json::Value>,
}

impl Failure {
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
            raised: None,
        }
    }

    /// An error with all that caused it.
    pub(crate) fn from_error(cause: Cause, error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Transparent errors repeat their sources.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = error.source();
        }
        Self::new(cause, message)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.cause.row().0.into()
    }

    /// What standard error gets.
    pub(crate) fn report(&self, as_json: bool) -> String {
        let (code, name, advice) = self.cause.row();
        if as_json {
            let mut error =
                json!({"cause": name, "code": code, "message": self.message, "advice": advice});
            if let Some(raised) = &self.raised {
                error["raised"] = raised.clone();
            }
            return json!({ "error": error }).to_string();
        }
        let message = &self.message;
        if advice.is_empty() {
            format!("partisan: {message}")
        } else {
            format!("partisan: {message}\n  {advice}")
        }
    }
}

impl From<EpmdError> for Failure {
    fn from(error: EpmdError) -> Self {
        let cause = match &error {
            EpmdError::Absent { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
                Cause::NoEpmd
            }
            EpmdError::Start(_) => Cause::NoEpmd,
            EpmdError::Absent { .. } | EpmdError::Silent(_) => Cause::Unreachable,
            EpmdError::Taken(_) => Cause::Refused,
            EpmdError::BadName(_) => Cause::Usage,
            _ => Cause::Other,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::from(&error)
    }
}

impl From<&ResolveError> for Failure {
    fn from(error: &ResolveError) -> Self {
        let cause = match error {
            ResolveError::Epmd(error) => return error.clone().into(),
            ResolveError::Name(_) | ResolveError::NotListed { .. } => Cause::Usage,
            ResolveError::Host { .. } => Cause::Unreachable,
            ResolveError::NotRunning { .. } => Cause::NotRunning,
        };
        Self::new(cause, error.to_string())
    }
}

fn of_handshake(error: &HandshakeError) -> Cause {
    match error {
        HandshakeError::WrongCookie { .. }
        | HandshakeError::Closed {
            awaited: Awaited::Ack,
            ..
        } => Cause::WrongCookie,
        HandshakeError::MissingFlags { .. } | HandshakeError::TooOld => Cause::FlagsMissing,
        HandshakeError::Refused { .. } | HandshakeError::Closed { .. } => Cause::Refused,
        HandshakeError::NameMismatch { .. } => Cause::WrongName,
        // The length is the beginning of an alert of TLS.
        HandshakeError::TooLong(0x1503) => Cause::Tls,
        _ => Cause::Other,
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let cause = match &error {
            ConnectError::Resolve(error) => return Self::from(&**error),
            ConnectError::Dial(error) => match &**error {
                DialError::Name(_) => Cause::Usage,
                DialError::Tls { .. } => Cause::Tls,
                DialError::Establish(error) => match error {
                    EstablishError::Connect { .. } => Cause::Unreachable,
                    EstablishError::Timeout("the TLS handshake") => Cause::Tls,
                    EstablishError::Timeout(_) => Cause::Timeout,
                    EstablishError::Handshake(error) => of_handshake(error),
                    _ => Cause::Other,
                },
            },
            _ => Cause::Other,
        };
        let mut failure = Self::from_error(cause, &error);
        if cause == Cause::Tls {
            failure.message = format!(
                "no TLS with the other node, or only there: {}",
                failure.message
            );
        }
        failure
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connect(error) => error.into(),
            CallError::Timeout(_) => Self::new(Cause::Timeout, error.to_string()),
            error => Self::from_error(Cause::Other, &error),
        }
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        let (class, reason, stack) = match error {
            RpcError::Connect(error) => return error.into(),
            RpcError::Timeout(_) => return Self::new(Cause::Timeout, error.to_string()),
            RpcError::Refused(_) => return Self::new(Cause::Refused, error.to_string()),
            RpcError::NoConnection => return Self::new(Cause::Unreachable, error.to_string()),
            RpcError::Error { reason, stack } => ("error", reason, Some(stack)),
            RpcError::Exit(reason) => ("exit", reason, None),
            RpcError::Throw(reason) => ("throw", reason, None),
            error => return Self::from_error(Cause::Other, &error),
        };
        let mut raised = json!({"class": class, "reason": to_json(&reason)});
        let mut message = format!("the function raised {class}:{reason}");
        if let Some(stack) = stack {
            message.push_str(&format!("\n  {stack}"));
            raised["stack"] = to_json(&stack);
        }
        Self {
            raised: Some(raised),
            ..Self::new(Cause::Raised, message)
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Epmd(error) => error.into(),
            error => {
                let cause = match &error {
                    StartError::Name(_) | StartError::NodeName(_) | StartError::NoCookie => {
                        Cause::Usage
                    }
                    StartError::Tls(TlsError::NotBuilt) => Cause::Usage,
                    StartError::Tls(_) => Cause::Tls,
                    _ => Cause::Other,
                };
                Self::from_error(cause, &error)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_documented() {
        for (at, (cause, code, name, _)) in ALL.iter().enumerate() {
            assert_eq!(usize::from(*code), at + 1);
            assert_eq!(cause.row().1, *name);
            assert!(EXIT_CODES.contains(&format!("{code} ")), "{code}");
        }
    }

    #[test]
    fn reports() {
        let failure = Failure::new(Cause::WrongCookie, "a@h has another cookie");
        let text = failure.report(false);
        assert!(text.starts_with("partisan: a@h has another cookie\n  give the cookie"));
        let json: serde_json::Value = serde_json::from_str(&failure.report(true)).unwrap();
        assert_eq!(json["error"]["cause"], "wrong_cookie");
        assert_eq!(json["error"]["code"], 6);
        assert_eq!(
            Failure::new(Cause::Raised, "x").report(false),
            "partisan: x"
        );
    }

    #[test]
    fn sources_are_told_once() {
        let inner = std::io::Error::other("inside");
        let outer = std::io::Error::other(inner);
        let failure = Failure::from_error(Cause::Other, &outer);
        assert_eq!(failure.to_string(), "inside");
        let error = "x".parse::<partisan::Value>().map(|_| ()).err();
        assert!(error.is_none());
        let error = partisan::serde::SerdeError::from(partisan::TermError::Float);
        let failure = Failure::from_error(Cause::Other, &error);
        assert_eq!(failure.to_string(), partisan::TermError::Float.to_string());
    }
}
