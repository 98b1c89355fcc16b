import ArgumentParser

/// `carrel-vmm`: one guest, one process.
@main
struct CarrelVMM: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "carrel-vmm",
    abstract: "Runs one virtual PC on /dev/kvm and shows its screen.",
    version: "0.1.0",
    subcommands: [Run.self, DiskTool.self, Template.self, Check.self], defaultSubcommand: Run.self)

  static func main() {
    // 'run' has a default for everything: a machine with nothing to start, which nobody sees.
    guard CommandLine.argc > 1 else {
      exit(
        withError: ValidationError(
          "say what to run, as in 'carrel-vmm run --kernel FILE --vnc 127.0.0.1:5901'; "
            + "'carrel-vmm --help' lists the commands, and 'carrel-vmm run --help' the options."))
    }
    main(nil)
  }
}
