//! `cchaha-run pull`: gets a model from the hub, or prints which are known.

use clap::Args;
use serde::Serialize;

use crate::exit::Result;
use crate::hub;
use crate::hub::catalog::{CONTEXT, KNOWN, Known};
use crate::output::{Align, Out, Table, bytes};

/// Get a model from the Hugging Face hub, or without a name list code models known to run well
///
/// The file goes into the hub's usual cache (HF_HOME), is resumed where an earlier try was cut, and is checked by its
/// SHA-256. Its path is printed. HF_TOKEN is sent along for models that are not public; HF_ENDPOINT names another hub.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A short name from the list, or OWNER/REPO[:QUANT] on the hub
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print one JSON object per model instead of a table or a path
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    model: String,
    bytes: u64,
    memory_bytes: u64,
    licence: &'a str,
}

impl Pull {
    pub(crate) fn run(self) -> Result {
        let mut out = Out::new();
        let Some(name) = self.name else { return known(&mut out, self.json) };
        let reference = match Known::find(&name) {
            Some(known) => known.reference(),
            None => name.parse()?,
        };
        let path = hub::pull(&reference)?;
        if self.json {
            out.json(&serde_json::json!({"model": reference.to_string(), "path": path}))?;
        } else {
            out.line(path.display())?;
        }
        out.flush()
    }
}

fn known(out: &mut Out, json: bool) -> Result {
    let rows = KNOWN.iter().map(|known| Row {
        name: known.name,
        model: known.reference().to_string(),
        bytes: known.bytes,
        memory_bytes: known.memory_bytes(),
        licence: known.licence,
    });
    if json {
        rows.into_iter().try_for_each(|row| out.json(&row))?;
        return out.flush();
    }
    let memory = format!("memory at {CONTEXT} tokens");
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("size", Align::Right),
        (&memory, Align::Right),
        ("licence", Align::Left),
        ("as -m", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.name.to_owned(),
            bytes(row.bytes),
            bytes(row.memory_bytes),
            row.licence.to_owned(),
            row.model,
        ]);
    }
    table.print(out)?;
    out.flush()
}
