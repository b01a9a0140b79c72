//! The program's door; its rooms are in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    hybrid_server_cli::main()
}
