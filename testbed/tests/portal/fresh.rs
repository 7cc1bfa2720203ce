//! Machines that know nothing of each other, as on the first day.

use testbed::trial::{Bed, Outcome};

/// The Pi forgets its password, its VM and what happened.
pub fn pi(bed: &Bed) -> Outcome {
    bed.pi().check(
        "rm -rf /data/portal /data/history.db* /data/ssh/known_hosts /etc/usbip/vm.conf && killall appliance",
    )?;
    bed.pi()
        .wait_until("wget -qO- http://127.0.0.1:8080/healthz | grep ok")?;
    Ok(())
}

/// The VM has the package, and nothing that tells of a Pi.
pub fn vm(bed: &Bed) -> Outcome {
    bed.vm().check(
        "rm -rf /home/dev/.ssh && sed -i '/^DEFAULT_PI_HOST=/d' /etc/usbip/pi.conf && \
         (pkill -f '[u]sb-event-handler session' || true)",
    )?;
    Ok(())
}
