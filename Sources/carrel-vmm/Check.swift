import ArgumentParser
import LinuxSystem
import Machine
import QMP

/// Says whether this host can run machines.
struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check that this host can run virtual PCs.",
    discussion: """
      Looks at /dev/kvm (that it is there and may be opened, its API version and \
      capabilities, and what kind of host it is) and at the firmware's files. The exit \
      status is 0 when all is well, 1 when something is missing.
      """)

  @Flag(help: "Print one JSON object instead of lines of text.")
  var json = false

  func run() throws {
    let checks = HostCheck.all()
    let isOK = checks.allSatisfy(\.isOK)
    let text = json ? Self.document(checks, isOK).encoded + [0x0A] : Self.lines(checks)
    try FileDescriptor.standard(1).writeAll(text)
    if !isOK { throw ExitCode.failure }
  }

  private static func document(_ checks: [HostCheck], _ isOK: Bool) -> JSON {
    [
      "ok": .bool(isOK),
      "checks": .array(
        checks.map {
          [
            "name": .string($0.name), "ok": .bool($0.isOK), "text": .string($0.text),
            "remedy": .string($0.remedy),
          ]
        }),
    ]
  }

  private static func lines(_ checks: [HostCheck]) -> [UInt8] {
    let lines = checks.map { check in
      "\(check.isOK ? "ok  " : "FAIL")  \(check.name): \(check.text)\n"
        + (check.remedy.isEmpty ? "" : "      remedy: \(check.remedy)\n")
    }
    return Array(lines.joined().utf8)
  }
}
