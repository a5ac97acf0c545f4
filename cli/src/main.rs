//! `farlane`: the one binary, for those who run a network and those who use one.
//!
//! Owns the commands, their flags and their output, and the make-up of `farlane up`. Leaves
//! everything a command does to the rooms below: the server, the agent, the client.
//!
//! Standard output carries answers, standard error everything else, so that `--json` can be piped.

mod access;
mod agent_process;
mod capacity;
mod command;
mod connect;
mod control;
mod folders;
mod owner;
mod parse;
mod place;
mod price_file;
mod problem;
mod revocations;
mod show;
mod uv;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command::{
    agent, cancel, completions, config, doctor, explain, granter, keys, login, logs, nodes, prices,
    projects, reference, regions, server, sim, status, tasks, tokens, trace, trust, up,
};
use crate::problem::Problem;

/// Run Python functions on machines anywhere; nobody in between can read them.
#[derive(Debug, Parser)]
#[command(
    name = "farlane",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Start here:  farlane up          (a whole network on this machine)\n\
                        then:        farlane status\n\
                        Exit codes:  0 fine · 1 failed · 2 wrong usage · 3 not allowed · 4 no connection · 5 not found"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Server(server::Args),
    Agent(agent::Args),
    Granter(granter::Args),
    Login(login::Args),
    Trust(trust::Args),
    Status(status::Args),
    Nodes(nodes::Args),
    Regions(regions::Args),
    Sim(sim::Args),
    Trace(trace::Args),
    Prices(prices::Args),
    Projects(projects::Args),
    Tasks(tasks::Args),
    Logs(logs::Args),
    Explain(explain::Args),
    Cancel(cancel::Args),
    Keys(keys::Args),
    Tokens(tokens::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Reference(reference::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            problem.print();
            problem.exit()
        }
    }
}

fn run(command: Command) -> Result<(), Problem> {
    match command {
        Command::Up(args) => up::run(args),
        Command::Server(args) => server::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Granter(args) => granter::run(args),
        Command::Login(args) => login::run(args),
        Command::Trust(args) => trust::run(args),
        Command::Status(args) => status::run(args),
        Command::Nodes(args) => nodes::run(args),
        Command::Regions(args) => regions::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Prices(args) => prices::run(args),
        Command::Projects(args) => projects::run(args),
        Command::Tasks(args) => tasks::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Cancel(args) => cancel::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Tokens(args) => tokens::run(args),
        Command::Config(args) => config::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command_tree()),
        Command::Reference(args) => reference::run(&args, Cli::command_tree()),
    }
}

impl Cli {
    fn command_tree() -> clap::Command {
        <Self as clap::CommandFactory>::command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command explains itself with an example, and none contradicts itself.
    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(
                command.get_about().is_some(),
                "{path} says nothing about itself"
            );
            if command.has_subcommands() {
                command.get_subcommands().for_each(|sub| check(sub, &path));
                return;
            }
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example") && help.contains("farlane "),
                "{path} has no example"
            );
        }
        let tree = Cli::command_tree();
        tree.clone().debug_assert();
        tree.get_subcommands().for_each(|sub| check(sub, "farlane"));
    }

    /// Which network is meant is never dropped: where a command does not take the flags before its action, it
    /// says so.
    #[test]
    fn a_network_named_before_an_action_is_honoured_or_refused() {
        let honoured: [&[&str]; 2] = [
            &["nodes", "--data", "x", "remove", "y"],
            &["trust", "--data", "x", "list"],
        ];
        let refused: [&[&str]; 6] = [
            &["tokens", "--data", "x", "list"],
            &["tokens", "--url", "https://a:1", "revoke", "y"],
            &["keys", "--identity", "x", "revoke", "y"],
            &["config", "--data", "x", "show"],
            &["tasks", "--data", "x", "list"],
            &["nodes", "list", "--data", "x", "--identity", "y"],
        ];
        let parses = |words: &&[&str]| Cli::try_parse_from([&["farlane"], *words].concat()).is_ok();
        assert!(honoured.iter().all(parses));
        assert!(!refused.iter().any(parses));
    }

    #[test]
    fn wrong_usage_is_found_before_anything_is_asked() {
        let lines: [&[&str]; 3] = [
            &["farlane", "status", "--url", "zzz"],
            &["farlane", "keys", "create", "k", "--scopes", "read,all"],
            &["farlane", "keys", "create", "k", "--scopes", ""],
        ];
        for line in lines {
            let error = Cli::try_parse_from(line).err();
            assert_eq!(error.map(|e| e.exit_code()), Some(2), "{line:?}");
        }
    }

    #[test]
    fn every_question_answers_in_json() {
        let asks: [&[&str]; 13] = [
            &["farlane", "agent", "probe", "--json"],
            &["farlane", "status", "--json"],
            &["farlane", "nodes", "list", "--json"],
            &["farlane", "prices", "show", "--json"],
            &["farlane", "regions", "--json"],
            &["farlane", "projects", "show", "default", "--json"],
            &["farlane", "tasks", "--json"],
            &["farlane", "explain", "--json", "01ARZ3NDEKTSV4RRFFQ69G5FAV"],
            &["farlane", "logs", "--json", "01ARZ3NDEKTSV4RRFFQ69G5FAV"],
            &["farlane", "keys", "list", "--json"],
            &["farlane", "config", "show", "--json"],
            &["farlane", "doctor", "--json"],
            &["farlane", "trace", "export", "-o", "x", "--json"],
        ];
        for line in asks {
            assert!(Cli::try_parse_from(line).is_ok(), "{line:?}");
        }
        assert!(Cli::try_parse_from(["farlane", "explain", "not-an-id"]).is_err());
    }
}
