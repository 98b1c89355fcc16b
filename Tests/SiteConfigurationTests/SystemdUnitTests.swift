import Foundation
import TestSupport
import Testing

@Suite("The systemd unit")
struct SystemdUnitTests {
  private static let path = Programs.repository + "/assets/systemd/carreld.service"

  /// What desktops depend on when carreld ends, is upgraded or dies.
  static let settings = [
    "KillMode=process", "RuntimeDirectory=carrel", "RuntimeDirectoryMode=0700",
    "RuntimeDirectoryPreserve=yes", "StateDirectory=carrel", "StateDirectoryMode=0700",
    "Restart=on-failure", "OOMPolicy=continue", "LimitNOFILE=65536",
  ]

  private func lines() throws -> [String] {
    try String(contentsOfFile: Self.path, encoding: .utf8).split(separator: "\n").map(String.init)
  }

  @Test("desktops outlive carreld, and it is started again", arguments: settings)
  func setting(line: String) throws {
    let lines = try lines()
    #expect(lines.contains(line))
    let key = line.prefix { $0 != "=" } + "="
    #expect(lines.count { $0.hasPrefix(key) } == 1, "\(key) is there twice")
  }

  @Test("systemd accepts it as it is installed", .needs("systemd-analyze"))
  func verify() throws {
    let directory = try TemporaryDirectory()
    let program = try directory.write([UInt8]("#!/bin/sh\n".utf8), to: "carreld")
    let unit = try lines().map {
      $0.hasPrefix("ExecStart=") ? "ExecStart=\(program)" : $0
    }.joined(separator: "\n")
    try directory.write(Array((unit + "\n").utf8), to: "carreld.service")
    let (status, output) = try directory.run(
      "chmod +x carreld && systemd-analyze verify --man=no ./carreld.service")
    #expect(status == 0, "\(output)")
    let complaints = output.split(separator: "\n").filter { $0.contains("carreld.service") }
    #expect(complaints.isEmpty, "\(complaints)")
  }
}
