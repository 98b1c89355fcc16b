import ArgumentParser
import SiteConfiguration

@main
struct Carreld: AsyncParsableCommand {
  static let version = "0.1.0"

  static let configuration = CommandConfiguration(
    commandName: "carreld",
    abstract: "Brokers the desktops of one host: gateway, control API, broker, supervisor, store.",
    discussion: """
      Ends on SIGTERM and SIGINT; desktops run on and are found again by the next start, unless \
      the configuration says desktops.stop_at_exit. Administered with 'carrel'.
      """,
    version: version,
    subcommands: [RunCommand.self, DoctorCommand.self, CheckCommand.self],
    defaultSubcommand: RunCommand.self)
}

/// What the daemon and its checks agree on.
struct SiteOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The configuration file; /etc/carrel/carrel.yaml if there is one.", valueName: "file"),
    completion: .file())
  var config: String?

  @Option(
    help: ArgumentHelp(
      "Where records and disks are kept; goes before the configuration.", valueName: "directory"),
    completion: .directory)
  var stateDirectory: String?

  @Option(
    help: ArgumentHelp(
      "Where sockets and running desktops are; goes before the configuration.",
      valueName: "directory"), completion: .directory)
  var runtimeDirectory: String?

  /// The configuration, with the directories settled.
  func load() throws -> CarrelConfiguration {
    var configuration = CarrelConfiguration()
    if let file = config ?? Places.defaultConfiguration {
      configuration = try CarrelConfiguration(contentsOf: file)
    }
    if let stateDirectory { configuration.stateDirectory = Places.absolute(stateDirectory) }
    if let runtimeDirectory { configuration.runtimeDirectory = Places.absolute(runtimeDirectory) }
    if configuration.stateDirectory.isEmpty { configuration.stateDirectory = Places.state }
    if configuration.runtimeDirectory.isEmpty { configuration.runtimeDirectory = Places.runtime }
    return configuration
  }
}
