//! One request and its answer.

use protocol::line::{Answer, Attachment, Request};

use crate::{
    attach::{Vm, monotonic_usec},
    check,
    failure::Error,
    links,
};

/// An answer, and what may still have to be waited for.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// An attachment that udev may still be busy with, and since when (monotonic, microseconds).
    pub unsettled: Option<(Attachment, u64)>,
}

/// Carry out a request. A hello's boot id must be in `vm` by then.
pub fn answer(vm: &Vm, request: &Request) -> Answered {
    let mut unsettled = None;
    let result = match request {
        Request::Connect(busid, devid) => {
            let before = monotonic_usec();
            vm.connect(busid, *devid).map(|attachment| {
                links::refresh_or_say(vm);
                let since = if attachment.timings.is_some() {
                    before
                } else {
                    0
                };
                unsettled = Some((attachment.clone(), since));
                Answer::Attached(attachment)
            })
        }
        Request::Disconnect(busid, devid) => vm.disconnect(busid, *devid).map(|was_attached| {
            links::refresh_or_say(vm);
            Answer::Detached { was_attached }
        }),
        Request::Status => {
            links::refresh_or_say(vm);
            vm.status().map(Answer::Status)
        }
        Request::Ping => Ok(Answer::Pong {}),
        Request::Check => Ok(Answer::Checks(check::all(&vm.root))),
        Request::Aliases(names) => links::told(vm, names).map(|()| Answer::Linked {}),
        Request::Hello(_) => vm.clear_other_boots().map(|cleared| {
            links::refresh_or_say(vm);
            Answer::Welcome { cleared }
        }),
    };
    Answered {
        answer: result.unwrap_or_else(|error: Error| Answer::Error(error.failure())),
        unsettled,
    }
}
