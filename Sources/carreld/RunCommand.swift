import ArgumentParser
import Brokering
import CarrelBase
import ControlAPI
import ControlServer
import Foundation
import Identity
import Logging
import ServiceLifecycle
import SiteConfiguration
import Store
import Supervisor

struct RunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Serves until told to stop (the default).")

  @OptionGroup var site: SiteOptions

  @Flag(help: "Desktops are only simulated: no KVM, no viewers. For trying out 'carrel'.")
  var simulate = false

  func run() async throws {
    do {
      try await serve()
    } catch let error as any CarrelError {
      FileHandle.standardError.write(Data("carreld: \(error)\n".utf8))
      let isConfigurations =
        error is ConfigurationError || (error as? DaemonError)?.kind == .certificate
      throw ExitCode(isConfigurations ? 78 : 1)
    }
  }

  private func serve() async throws {
    let configuration = try site.load()
    let logger = Self.makeLogger(configuration)
    let directory = SiteDirectory(configuration)
    try directory.prepare()
    let limit = OpenFiles.raiseLimit()
    logger.info("open files", metadata: ["limit": "\(limit)"])
    // Should memory run out all the same, others go first.
    OutOfMemoryScore.protectThisProcess()
    let claim = try await SiteClaim(
      stateDirectory: directory.state, runtimeDirectory: directory.runtime)
    let daemon = try await Daemon(
      configuration: configuration, directory: directory, simulate: simulate, logger: logger)
    try await daemon.serve()
    withExtendedLifetime(claim) {}
  }

  private static func makeLogger(_ configuration: CarrelConfiguration) -> Logger {
    LoggingSystem.bootstrap(StreamLogHandler.standardError)
    var logger = Logger(label: "carreld")
    logger.logLevel = Logger.Level(rawValue: configuration.log.level) ?? .info
    return logger
  }
}

struct CheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Reads the configuration and says what is wrong with it.")

  @OptionGroup var site: SiteOptions

  func run() throws {
    do {
      let configuration = try site.load()
      try configuration.gateway.checkFiles()
      if !configuration.gateway.certificate.isEmpty {
        let check = HostChecks(configuration, running: false).certificate()
        guard check.state != .failed else {
          throw DaemonError(
            .certificate, check.detail + (check.remedy.map { ": \($0)" } ?? ""))
        }
      }
      print("The configuration is fine.")
    } catch let error as any CarrelError {
      FileHandle.standardError.write(Data("carreld: \(error)\n".utf8))
      throw ExitCode(78)
    }
  }
}
