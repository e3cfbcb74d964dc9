//! Names in `global`, the registry that the visible nodes of a stock cluster share.
//!
//! `global` is kept by all visible nodes together, under locks that each of them has to grant. A hidden node
//! takes no part in that, so it asks one that does, by calls of its functions: this is how the C
//! nodes of `erl_interface` do it (`ei_global_register`).
//!
//! `global` knows that such a process is external (`global.erl`, `register_name_external/2`). All its nodes monitor
//! the process, and forget the name when it ends or their connection with this node does. The `global_name_server` of
//! the node that was asked *links* to it as well, so that the process ends with that node unless it
//! traps exits. One that does keeps its name among the other nodes.

use std::time::Duration;

use thiserror::Error;

use crate::node::api::Node;
use crate::node::call::RpcError;
use crate::wire::term::{Pid, Value};

/// How long `global` may take. It needs the locks of all nodes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why `global` has not done what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum GlobalError {
    /// A process has that name already.
    #[error("the global name {0:?} is taken")]
    Taken(Value),
    /// The node could not be asked, or has failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The node has answered something that `global` does not answer.
    #[error("`global` does not answer so: {0:?}")]
    BadAnswer(Value),
}

impl Node {
    async fn global(
        &self,
        via: &str,
        function: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, GlobalError> {
        let called = self.rpc(via, "global", function, arguments, Some(PATIENCE));
        Ok(called.await?)
    }

    /// Registers a process of this node under a global name, through the stock node `via`, which must be
    /// a visible one. All nodes of its cluster find the process by `global:whereis_name`.
    ///
    /// The name is given up when the process ends, and each node gives it up that loses its connection with this one.
    /// When `via` ends, or the connection with it, the process gets an exit signal with the reason `noconnection`: that
    /// ends it unless it [traps exits](crate::Mailbox::trap_exits). Then it may register again through
    /// another node, if that does not know the name still.
    ///
    /// # Errors
    /// See [`GlobalError`].
    pub async fn global_register(
        &self,
        name: impl Into<Value>,
        process: impl AsRef<Pid>,
        via: &str,
    ) -> Result<(), GlobalError> {
        let name = name.into();
        let arguments = vec![name.clone(), process.as_ref().clone().into()];
        let answer = self.global(via, "register_name_external", arguments);
        let answer = answer.await?;
        match answer.as_atom() {
            Some("yes") => Ok(()),
            Some("no") => Err(GlobalError::Taken(name)),
            _ => Err(GlobalError::BadAnswer(answer)),
        }
    }

    /// Gives a global name up, whoever has it. A name that nobody has is no error.
    ///
    /// # Errors
    /// See [`GlobalError`].
    pub async fn global_unregister(
        &self,
        name: impl Into<Value>,
        via: &str,
    ) -> Result<(), GlobalError> {
        let arguments = vec![name.into()];
        let answer = self.global(via, "unregister_name_external", arguments);
        answer.await.map(|_| ())
    }

    /// The process of a global name, as the stock node `via` knows it.
    ///
    /// # Errors
    /// See [`GlobalError`].
    pub async fn global_whereis(
        &self,
        name: impl Into<Value>,
        via: &str,
    ) -> Result<Option<Pid>, GlobalError> {
        let answer = self.global(via, "whereis_name", vec![name.into()]).await?;
        match answer {
            Value::Pid(pid) => Ok(Some(pid)),
            answer if answer.is_atom("undefined") => Ok(None),
            answer => Err(GlobalError::BadAnswer(answer)),
        }
    }

    /// All global names, as the stock node `via` knows them.
    ///
    /// # Errors
    /// See [`GlobalError`].
    pub async fn global_names(&self, via: &str) -> Result<Vec<Value>, GlobalError> {
        match self.global(via, "registered_names", Vec::new()).await? {
            Value::List(names) => Ok(names),
            answer => Err(GlobalError::BadAnswer(answer)),
        }
    }
}
