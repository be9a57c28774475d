//! Short programs in other languages, with the libraries that `tests/run` installs: producers, vendors'
//! own clients, and whoever checks what we wrote.

use tokio::process::Command;

use super::variable;

/// Runs a Python program to its end; gives what it printed.
pub(crate) async fn python(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(variable("LEDGER_TEST_PYTHON"));
    command.args(["-B", "-c", program]).args(arguments);
    output(command).await
}

/// Runs a Node module to its end; gives what it printed.
pub(crate) async fn node(module: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.mjs"), module).unwrap();
    std::os::unix::fs::symlink(variable("LEDGER_TEST_NODE_MODULES"), folder.path().join("node_modules"))
        .unwrap();
    let mut command = Command::new("node");
    command.arg("main.mjs").args(arguments).current_dir(folder.path());
    command.envs(environment.iter().copied());
    output(command).await
}

async fn output(mut command: Command) -> String {
    let output = command.kill_on_drop(true).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}"); // without the arguments, which may be keys
    String::from_utf8(output.stdout).unwrap()
}
