import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

struct DoctorCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Checks KVM, packages, permissions, disk and ports, with remedies.",
    discussion: """
      Asks the running carreld, which knows its configuration and its rights. If none answers, \
      'carreld doctor' is run here instead. Ends with 7 if something does not work.
      """)

  @Option(help: "The configuration to check if carreld does not run.", completion: .file())
  var config: String?

  @OptionGroup var options: CommonOptions

  func run() async throws {
    let terminal = Terminal(quiet: options.json)
    terminal.showProgress("looking around")
    let report = await examine()
    terminal.endProgress()
    if options.json {
      print(try printedJSON(report))
    } else {
      print(Self.render(report, terminal))
    }
    if report.checks.contains(where: { $0.state == .failed }) {
      throw ExitCode(ExitStatus.unhealthy.rawValue)
    }
  }

  private func examine() async -> DoctorDocument {
    do {
      let client = try options.client()
      var report: DoctorDocument = try await client.get(APIPath("doctor"))
      report.checks.insert(
        .init(name: "carreld", state: .ok, detail: "answers at \(client.socketPath)"), at: 0)
      return report
    } catch {
      let daemon = DoctorDocument.Check(
        name: "carreld", state: .failed, detail: error.description,
        remedy: "start it with 'carreld'")
      return DoctorDocument(checks: [daemon] + examineHere())
    }
  }

  private func examineHere() -> [DoctorDocument.Check] {
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    let program = own.deletingLastPathComponent().appendingPathComponent("carreld")
    let process = Process()
    process.executableURL = program
    process.arguments = ["doctor", "--json"] + (config.map { ["--config", absolute($0)] } ?? [])
    let output = Pipe()
    process.standardOutput = output
    guard (try? process.run()) != nil,
      let data = try? output.fileHandleForReading.readToEnd(),
      let report = try? JSONDecoder().decode(DoctorDocument.self, from: data)
    else {
      return [
        .init(
          name: "installation", state: .failed, detail: "\(program.path) cannot be run",
          remedy: "install carreld beside carrel")
      ]
    }
    return report.checks
  }

  static func render(_ report: DoctorDocument, _ terminal: Terminal) -> String {
    var table = Table("CHECK", "STATE", "DETAIL")
    for check in report.checks {
      let colour: Terminal.Colour =
        switch check.state {
        case .ok: .green
        case .warning: .yellow
        case .failed: .red
        }
      table.add(.init(check.name), .init(check.state.rawValue, colour), .init(check.detail))
      if let remedy = check.remedy { table.add("", "", .init("→ " + remedy)) }
    }
    return table.render(terminal, empty: "")
  }
}
