//! `policy import`: another system's document, as an `egress` block.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;
use sluicegate_policy::{Choices, System, import, text::Faults};

use super::{
    super::failure::{Failure, USAGE},
    source, yaml,
};

/// `policy import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// The system the document is written for.
    #[arg(long, value_name = "SYSTEM", value_parser = systems())]
    from: String,
    /// The document (YAML or JSON); - for standard input.
    file: PathBuf,
    /// The role of a Smokescreen ACL to read.
    #[arg(long)]
    role: Option<String>,
    /// Drop what cannot be enforced here, with a note, instead of refusing it. The result then allows more.
    #[arg(long)]
    widen: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn systems() -> PossibleValuesParser {
    PossibleValuesParser::new(System::ALL.iter().map(|(name, _)| *name))
}

pub(in crate::cli) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let text = source::read_text(&args.file)?;
    let system = System::ALL
        .iter()
        .find(|(name, _)| *name == args.from)
        .map(|(_, system)| *system)
        .ok_or_else(|| Failure::new(USAGE, format!("unknown system {:?}", args.from)))?;
    let choices = Choices {
        role: args.role.clone(),
        widen: args.widen,
    };
    let imported = match import(system, &text, &choices) {
        Ok(imported) => imported,
        Err(faults) => {
            if args.json {
                say!(
                    "{:#}",
                    json!({ "errors": faults.errors, "notes": faults.warnings })
                );
            }
            return Err(source::refused(&faults, &text, &name));
        }
    };
    let egress = imported.document.egress.to_value();
    if args.json {
        say!("{:#}", json!({ "egress": egress, "notes": imported.notes }));
        return Ok(());
    }
    let notes = Faults {
        warnings: imported.notes,
        ..Faults::default()
    };
    let masked = sluicegate_policy::lint_source(&text).masked;
    note_whole!("{}", notes.render(&masked, &name));
    say_whole!("{}", yaml::block(&egress));
    Ok(())
}
