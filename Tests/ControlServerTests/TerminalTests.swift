import ControlAPI
import ControlClient
import Foundation
import LinuxSystem
import TestSupport
import Testing

@Suite("carrel on a terminal", .needs("script"))
struct TerminalTests {
  private let home: Home

  init() throws { home = try Home() }

  /// What a command shows on a terminal of its own.
  private func show(_ command: String, _ environment: [String: String] = [:]) throws -> String {
    let line = "'\(try Home.program("carrel"))' \(command)"
    let result = try home.run(
      path: "/usr/bin/script", ["-qefc", line, "/dev/null"],
      environment: ["CARREL_SOCKET": home.socket, "TERM": "xterm"].merging(environment) { $1 })
    try #require(result.code == 0, "\(result.output)")
    return result.output
  }

  @Test("tables have colours, unless NO_COLOR or a dumb terminal forbids them")
  func colours() throws {
    let daemon = try RunningDaemon(home)
    defer { daemon.stop() }
    try home.done("pool", "create", "office", "--image", home.image, "--spares", "1")
    for command in ["desktop list", "pool list", "status"] {
      let coloured = try show(command)
      #expect(coloured.contains("\u{1B}[1m"), "the header is bold")
      #expect(coloured.contains("\u{1B}[32m"), "what is well is green")
      #expect(try !show(command, ["NO_COLOR": "1"]).contains("\u{1B}"))
      #expect(try !show(command, ["TERM": "dumb"]).contains("\u{1B}"))
      #expect(try show(command, ["NO_COLOR": ""]).contains("\u{1B}[32m"), "empty forbids nothing")
      #expect(try !show(command + " --json").contains("\u{1B}"))
    }
  }

  @Test("what takes time shows a bar, which is gone at the end")
  func bar() async throws {
    let shown = try await create([:])
    let empty = "[" + String(repeating: "-", count: 30) + "] 0 of 1 spare desktops"
    #expect(shown.contains("\r\u{1B}[K" + empty))
    let end = try #require(shown.range(of: "\r\u{1B}[K", options: .backwards))
    #expect(shown[end.upperBound...].hasPrefix("Pool office is made"))
  }

  @Test("a dumb terminal gets no bar; without colours there is one all the same")
  func plainBar() async throws {
    let dumb = try await create(["TERM": "dumb"])
    #expect(!dumb.contains("\u{1B}") && !dumb.contains("[---"))
    #expect(dumb.contains("Pool office is made"))
    #expect(try await create(["NO_COLOR": "1"]).contains("[---"))
  }

  /// Makes a pool whose desktops are ready only after the command had time to say so.
  private func create(_ environment: [String: String]) async throws -> String {
    let (asked, ask) = AsyncStream<Void>.makeStream()
    let site = try InProcess(ready: { for await _ in asked { break } })
    let line =
      "'\(try Home.program("carrel"))' pool create office --size 1 --image '\(home.image)'"
    let variables = [
      "PATH": "/usr/bin:/bin", "TERM": "xterm",
      "CARREL_SOCKET": site.directory.path("control.sock"),
    ].merging(environment) { $1 }
    let shown = Guarded("")
    try await site.serving { client in
      let process = try LoggedProcess(
        "/usr/bin/script", ["-qefc", line, "/dev/null"], environment: variables)
      if environment["TERM"] == nil {
        try await aside { process.says("spare desktops") }
      } else {
        // Nothing tells when it waits, but that the pool is there.
        while try await client.get(APIPath("pools"), as: [PoolDocument].self).isEmpty {
          await Task.yield()
        }
      }
      ask.yield()
      let exit = try await aside { try process.wait() }
      #expect(exit == .exited(0))
      shown.withLock { $0 = process.text }
    }
    return shown.withLock { $0 }
  }
}

@Suite("Shell completion")
struct CompletionTests {
  private let home: Home
  private let daemon: RunningDaemon

  init() throws {
    home = try Home()
    daemon = try RunningDaemon(home)
    try home.done("user", "add", "alice", "--no-password")
    try home.done("user", "add", "bob", "--no-password")
    try home.done("pool", "create", "office", "--image", home.image, "--spares", "1")
  }

  /// What Bash offers for the last of the words, which carrel's own script is asked for.
  private func complete(
    _ words: [String], _ environment: [String: String] = [:]
  ) throws -> [String] {
    let script = """
      carrel() { '\(try Home.program("carrel"))' "$@"; }
      source <(carrel --generate-completion-script bash)
      COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
      COMP_TYPE=9 COMP_KEY=9
      _carrel carrel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
      printf '%s\\n' "${COMPREPLY[@]}"
      """
    let result = try home.run(
      path: "/bin/bash", ["-c", script, "bash"] + words, environment: environment)
    return result.output.split(separator: "\n").map {
      $0.trimmingCharacters(in: .whitespaces)
    }
  }

  @Test("names of the running site are offered")
  func names() throws {
    let site = ["CARREL_SOCKET": home.socket]
    #expect(try complete(["carrel", "user", "show", ""], site) == ["alice", "bob"])
    #expect(try complete(["carrel", "user", "show", "a"], site) == ["alice"])
    #expect(try complete(["carrel", "pool", "delete", ""], site) == ["office"])
    #expect(try complete(["carrel", "desktop", "stop", ""], site) == ["office-1"])
    #expect(try complete(["carrel", "entitle", "alice", ""], site) == ["office"])
  }

  @Test("a socket that is typed already is the one that is asked")
  func socket() throws {
    // The shell leaves quotes and "~" to whoever reads.
    for option in [["--socket", home.socket], ["--socket", "'\(home.socket)'"]] {
      let words = ["carrel", "user", "show"] + option + [""]
      #expect(try complete(words) == ["alice", "bob"], "\(option)")
      #expect(try complete(words, ["CARREL_SOCKET": "/nowhere"]) == ["alice", "bob"], "\(option)")
    }
    let tilde = ["carrel", "user", "show", "--socket", "~/run/control.sock", ""]
    #expect(try complete(tilde, ["HOME": home.directory.path]) == ["alice", "bob"])
    // As the scripts of other shells ask, which do not split at "=".
    let asked = try home.run(
      path: try Home.program("carrel"),
      [
        "---completion", "user", "show", "--", "positional@0", "4", "0", "carrel", "user", "show",
        "--socket=\(home.socket)", "",
      ], environment: ["SAP_SHELL": "fish"])
    #expect(asked.output == "alice\nbob\n", "\(asked.errors)")
  }

  @Test("without carreld nothing is offered")
  func nobody() throws {
    #expect(try complete(["carrel", "user", "show", "--socket", "/nowhere", ""]) == [])
  }
}
