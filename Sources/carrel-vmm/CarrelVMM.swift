import ArgumentParser

/// `carrel-vmm`: one guest, one process.
@main
struct CarrelVMM: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "carrel-vmm",
    abstract: "Runs one virtual PC on /dev/kvm and shows its screen.",
    version: "0.1.0",
    subcommands: [Run.self, DiskTool.self, Template.self, Check.self], defaultSubcommand: Run.self)
}
