//! The Pi's key on the VM, used by a person at the Pi.

use testbed::redir::Kind;
use testbed::trial::{Bed, Outcome};

const SSH: &str = "ssh -i /data/ssh/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=yes \
    -o UserKnownHostsFile=/data/ssh/known_hosts -o HostKeyAlias=usbip-vm";
/// Exit code of a command line that is wrong.
const MISUSED: Option<i32> = Some(2);

pub fn forced_command(bed: &Bed) -> Outcome {
    let plug = bed.plug(Kind::Cp2102)?;
    let attachment = bed.attached(&plug)?;
    let ask = |words: &str| {
        bed.pi()
            .sh(&format!("{SSH} dev@10.9.0.2 {words} </dev/null"))
    };

    // What is attached stays so, and what a person detaches by hand comes back: the Pi decides.
    let connected = ask(&format!("connect {}", plug.busid))?;
    assert_eq!(connected.code, Some(0), "{connected:?}");
    let node = format!("\"node\":\"{}\"", attachment.ttys[0].node);
    assert!(connected.stdout.contains(&node), "{connected:?}");
    assert_eq!(bed.attached(&plug)?, attachment);
    let gone = ask(&format!("disconnect {}", plug.busid))?;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    assert_eq!(bed.attached(&plug)?.ttys, attachment.ttys);

    for words in ["cat /etc/passwd", "'status; cat /etc/passwd'", ""] {
        let refused = ask(words)?;
        assert_eq!(refused.code, MISUSED, "{words}: {refused:?}");
        assert!(!refused.stdout.contains("root:"), "{words}: {refused:?}");
    }
    Ok(())
}
