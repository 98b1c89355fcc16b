import ArgumentParser
import Foundation
import SiteConfiguration

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor", abstract: "Checks this host; 'carrel doctor' shows it in full.")

  @OptionGroup var site: SiteOptions

  @Flag(help: "Answer in JSON.")
  var json = false

  func run() throws {
    let configuration: CarrelConfiguration
    do {
      configuration = try site.load()
    } catch let error as ConfigurationError {
      FileHandle.standardError.write(Data("carreld: \(error)\n".utf8))
      throw ExitCode(78)
    }
    let report = HostChecks(configuration, running: false).report()
    if json {
      print(String(decoding: try JSONEncoder().encode(report), as: UTF8.self))
    } else {
      for check in report.checks {
        print("\(check.state.rawValue)\t\(check.name)\t\(check.detail)")
        if let remedy = check.remedy { print("\t\t→ \(remedy)") }
      }
    }
    if report.checks.contains(where: { $0.state == .failed }) { throw ExitCode(7) }
  }
}
