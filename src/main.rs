//! The thin entry point: arguments in, exit code out. Everything else is in the library.

fn main() -> std::process::ExitCode {
    pgweir::cli::main()
}
