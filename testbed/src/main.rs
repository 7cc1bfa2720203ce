//! The testbed's command line: `testbed run` for a session with both machines, `testbed images` to build what
//! they start from.

use std::env;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use testbed::bench::{self, Section};
use testbed::image::Images;
use testbed::machine::{Accel, accel};
use testbed::pair::{Options, Pair};
use testbed::{place, prompt};

const USAGE: &str = "\
usage: testbed images
       testbed run [--appliance FILE] [--helper FILE.deb] [--port PORT]
       testbed bench [--appliance FILE] [--helper FILE.deb] [--quick] [SECTION...]

images  build what the machines start from (done by 'run' as well)
run     start the Pi and the VM, pair them, and read commands from standard input
        --appliance FILE  the Pi's program for this processor, else the one built beside this program
        --helper FILE     the VM's package, else the newest in target/packages
        --port PORT       port of this host for the portal, 8080 unless told otherwise
bench   measure the product beside the stock tools; figures go to target/bench/results.json as well
        --quick           a few measurements only: shows that all works
        SECTION           portal, footprint, latency, bytes or recovery; all unless told otherwise";

/// The portal's port on this host, as the README names it.
const PORTAL_PORT: u16 = 8080;

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("images") => {
            Images::ready(&progress(Instant::now()))?;
            Ok(())
        }
        Some("run") => {
            let (mut options, rest) = options(args)?;
            if let Some(other) = rest.first() {
                bail!("there is no option {other}\n{USAGE}");
            }
            options.portal_port.get_or_insert(PORTAL_PORT);
            run(options)
        }
        Some("bench") => {
            let (options, rest) = options(args)?;
            bench(options, &rest)
        }
        _ => bail!("{USAGE}"),
    }
}

/// What both commands understand, and the words that are left.
fn options(mut args: impl Iterator<Item = String>) -> Result<(Options, Vec<String>)> {
    let mut rest = Vec::new();
    let mut options = Options {
        appliance: place::appliance(),
        helper: place::helper(),
        ..Options::default()
    };
    while let Some(flag) = args.next() {
        let mut value = || {
            args.next()
                .with_context(|| format!("{flag} needs a value\n{USAGE}"))
        };
        match flag.as_str() {
            "--appliance" => options.appliance = Some(PathBuf::from(value()?)),
            "--helper" => options.helper = Some(PathBuf::from(value()?)),
            "--port" => options.portal_port = Some(value()?.parse().context("--port")?),
            _ => rest.push(flag),
        }
    }
    Ok((options, rest))
}

fn run(mut options: Options) -> Result<()> {
    let progress = progress(Instant::now());
    options.accel = choose_accel(&progress)?;
    let pair = Pair::start(&options, &progress)?;
    if options.appliance.is_some() && options.helper.is_some() {
        progress("pairing: waiting for the Pi's key");
        pair.pair()?;
    } else {
        progress("not paired: the appliance or the VM's package is not built (see tools/build)");
    }
    progress("both machines are up");
    println!("portal:  http://localhost:{}", pair.portal_port);
    println!("logs:    {}", pair.pi.run_dir().display());
    println!("try 'plug esp32-s3', then 'tty'; 'help' lists the rest");
    prompt::run(&pair, io::stdin().lock(), io::stdout().lock())?;
    progress("stopping both machines");
    Ok(())
}

fn choose_accel(progress: &dyn Fn(&str)) -> Result<Accel> {
    let images = Images::ready(progress)?;
    progress("looking whether KVM works on this host (at most 10 s, once)");
    let accel = accel::probe(&images).context("failed to look whether KVM works")?;
    if accel == Accel::Tcg {
        progress(
            "it does not: the machines' code is translated, which is slower and works everywhere",
        );
    }
    Ok(accel)
}

fn bench(mut options: Options, words: &[String]) -> Result<()> {
    let quick = words.iter().any(|word| word == "--quick");
    let mut sections = Vec::new();
    for word in words.iter().filter(|word| *word != "--quick") {
        sections.push(word.parse::<Section>()?);
    }
    if sections.is_empty() {
        sections = Section::ALL.to_vec();
    }
    if options.appliance.is_none() || options.helper.is_none() {
        bail!("the appliance or the VM's package is not built (see tools/build)");
    }
    let progress = progress(Instant::now());
    options.accel = choose_accel(&progress)?;
    let results = bench::run(&options, &sections, quick, &progress)?;
    println!("{results}");
    println!("figures: {}", place::bench().display());
    Ok(())
}

fn progress(begin: Instant) -> impl Fn(&str) + Sync {
    move |line| eprintln!("[{:5.1} s] {line}", begin.elapsed().as_secs_f64())
}
