//! The handshake against a real OTP node, from both ends.
//!
//! The test starts `erl` with a random name and finds it through epmd (OTP `erl_dist_protocol`,
//! "Protocol between the EPMD and Nodes"). Without an installed OTP it is skipped.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use partisan::wire::flags::Flags;
use partisan::wire::handshake::{
    Config, Effect, Established, Event, Handshake, HandshakeError, Link, Purpose, Role, Verdict,
};
use partisan::wire::identity::Identity;

type Any = Box<dyn Error>;

const EPMD: u16 = 4369;
const PATIENCE: Duration = Duration::from_secs(20);
const COOKIE: &str = "live_cookie";

/// An Erlang node that ends with the test.
struct Erl {
    name: String,
    child: Child,
}

impl Drop for Erl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Erl {
    /// `None` if OTP is not installed.
    fn start() -> Option<Erl> {
        let name = format!("live{:x}", rand::random::<u64>());
        let child = Command::new("erl")
            .args([
                "-noinput",
                "-setcookie",
                COOKIE,
                "-sname",
                &format!("{name}@localhost"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Erl { name, child }),
            Err(error) => {
                println!("skipped: erl does not start ({error})");
                None
            }
        }
    }

    fn full_name(&self) -> String {
        format!("{}@localhost", self.name)
    }

    fn connect(&self) -> Result<TcpStream, Any> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(port)) = port_please(&self.name) {
                return open(port);
            }
            if begin.elapsed() > PATIENCE {
                return Err("the node does not appear in epmd".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn open(port: u16) -> Result<TcpStream, Any> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn request(epmd: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    epmd.write_all(&[&(body.len() as u16).to_be_bytes(), body].concat())
}

/// `PORT_PLEASE2_REQ`: where a node listens.
fn port_please(name: &str) -> Result<Option<u16>, Any> {
    let mut epmd = open(EPMD)?;
    request(&mut epmd, &[b"z", name.as_bytes()].concat())?;
    let mut answer = Vec::new();
    epmd.read_to_end(&mut answer)?;
    Ok(match answer[..] {
        [b'w', 0, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    })
}

/// `ALIVE2_REQ` of a hidden node; the registration lives as long as the connection.
fn register(name: &str, port: u16) -> Result<TcpStream, Any> {
    let mut epmd = open(EPMD)?;
    let len = (name.len() as u16).to_be_bytes();
    let fixed = [72, 0, 0, 6, 0, 6];
    let body = [
        b"x",
        &port.to_be_bytes()[..],
        &fixed,
        &len,
        name.as_bytes(),
        &[0, 0],
    ]
    .concat();
    request(&mut epmd, &body)?;
    let mut answer = [0; 2];
    epmd.read_exact(&mut answer)?;
    if answer[1] != 0 {
        return Err(format!("epmd refuses the name: {answer:?}").into());
    }
    Ok(epmd)
}

fn config(name: &str, role: Role) -> Config {
    Config {
        local: Identity::new(name, 4711),
        flags: Flags::OURS,
        stock_flags: Flags::OURS,
        instance: rand::random(),
        capabilities: 0,
        nonce: rand::random(),
        challenge: rand::random(),
        role,
    }
}

fn dialer(peer: &Erl, cookie: &str) -> Handshake {
    let peer = peer.full_name().into();
    let role = Role::Dialer {
        peer,
        cookie: cookie.into(),
        purpose: Purpose::First,
    };
    Handshake::new(config(
        &format!("dial{:x}@localhost", rand::random::<u64>()),
        role,
    ))
}

/// Runs a handshake over a socket; the listener accepts every peer.
fn drive(mut machine: Handshake, stream: &mut TcpStream) -> Result<Established, HandshakeError> {
    let mut effects = Vec::new();
    let mut result = machine.handle(Event::Start, &mut effects);
    loop {
        let mut verdict = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(bytes) => stream.write_all(&bytes).expect("the socket is open"),
                Effect::Judge(_) => {
                    let cookie = COOKIE.into();
                    verdict = Some(Verdict::Accept {
                        cookie,
                        simultaneous: false,
                    });
                }
                Effect::Done(done) => return Ok(done),
            }
        }
        result?;
        result = match verdict {
            Some(verdict) => machine.handle(Event::Verdict(verdict), &mut effects),
            None => {
                let mut len = [0; 2];
                if stream.read_exact(&mut len).is_err() {
                    return Err(machine.closed());
                }
                let mut packet = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut packet).expect("a whole packet");
                machine.handle(Event::Packet(&packet), &mut effects)
            }
        };
    }
}

#[test]
fn dialler_reaches_a_stock_node() -> Result<(), Any> {
    let Some(erl) = Erl::start() else {
        return Ok(());
    };
    let done = drive(dialer(&erl, COOKIE), &mut erl.connect()?)?;
    assert_eq!(*done.peer.name, erl.full_name());
    assert_eq!((done.link, done.peer.trailer), (Link::Stock, None));
    assert!(
        done.peer
            .flags
            .contains(Flags::MANDATORY.with(Flags::V4_NC))
    );
    assert_ne!(done.peer.creation, 0);

    let error = drive(dialer(&erl, "another"), &mut erl.connect()?).expect_err("wrong cookie");
    assert!(error.to_string().contains("cookies differ"), "{error}");

    let mut machine = config("misled@localhost", Role::Listener);
    machine.role = Role::Dialer {
        peer: "somebody@localhost".into(),
        cookie: COOKIE.into(),
        purpose: Purpose::First,
    };
    let error = drive(Handshake::new(machine), &mut erl.connect()?).expect_err("wrong name");
    assert!(
        matches!(error, HandshakeError::NameMismatch { .. }),
        "{error}"
    );
    Ok(())
}

#[test]
fn name_is_held_by_a_live_connection() -> Result<(), Any> {
    let Some(erl) = Erl::start() else {
        return Ok(());
    };
    let attempt = || {
        let role = Role::Dialer {
            peer: erl.full_name().into(),
            cookie: COOKIE.into(),
            purpose: Purpose::First,
        };
        Handshake::new(config("twice@localhost", role))
    };
    let mut held = erl.connect()?;
    drive(attempt(), &mut held)?;
    let error = drive(attempt(), &mut erl.connect()?).expect_err("alive");
    assert!(
        error.to_string().contains("two nodes have the same name"),
        "{error}"
    );
    Ok(())
}

#[test]
fn stock_node_reaches_the_listener() -> Result<(), Any> {
    let Some(erl) = Erl::start() else {
        return Ok(());
    };
    // The node's start brings up epmd, if nothing else has.
    erl.connect()?;
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let name = format!("listen{:x}", rand::random::<u64>());
    let _registration = register(&name, socket.local_addr()?.port())?;
    let connect = format!("net_kernel:connect_node('{name}@localhost')");
    let eval = format!("halt(case {connect} of true -> 0; _ -> 1 end).");
    let caller_name = format!("call{:x}@localhost", rand::random::<u64>());
    let child = Command::new("erl")
        .args([
            "-noinput",
            "-hidden",
            "-setcookie",
            COOKIE,
            "-sname",
            &caller_name,
            "-eval",
            &eval,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut caller = Erl {
        name: caller_name.clone(),
        child,
    };
    socket.set_nonblocking(true)?;
    let begin = Instant::now();
    let mut stream = loop {
        match socket.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let listener = config(&format!("{name}@localhost"), Role::Listener);
    let done = drive(Handshake::new(listener), &mut stream)?;
    assert_eq!((&*done.peer.name, done.link), (&*caller_name, Link::Stock));
    assert!(
        caller.child.wait()?.success(),
        "the stock node takes the connection to be up"
    );
    Ok(())
}
