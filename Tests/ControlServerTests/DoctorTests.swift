import ControlAPI
import Foundation
import LinuxSystem
import TestSupport
import Testing

/// A site with one thing that is not right, and what the doctor has to say about it.
struct Ailment: CustomTestStringConvertible, Sendable {
  let what: String
  /// Shell commands in the directory before the doctor comes.
  var preparation = "true"
  /// Of the configuration, beside directories and programs; `@` stands for the directory.
  var gateway: [String] = []
  /// Of the whole file.
  var runtime = "@/run"
  let check: String
  let state: DoctorDocument.Check.State
  let says: String
  let remedy: String

  var testDescription: String { what }

  private static let certificate =
    "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=here"
  private static let ownCertificate = ["certificate: @/cert.pem", "key: @/key.pem"]

  static let all = [
    Ailment(
      what: "a state directory that others may enter", preparation: "chmod 755 state",
      check: "state directory", state: .warning, says: "@/state is open to other users",
      remedy: "chmod 700 @/state"),
    Ailment(
      what: "no noVNC", gateway: ["novnc_directory: @/nowhere"], check: "package novnc",
      state: .failed, says: "@/nowhere/vnc.html is missing", remedy: "apt-get install novnc"),
    Ailment(
      what: "a runtime directory too far down",
      runtime: "@/" + String(repeating: "deep", count: 20), check: "socket paths", state: .failed,
      says: "is too long for sockets below it", remedy: "choose a runtime directory of at most"),
    Ailment(
      what: "sessions in clear text", gateway: ["cleartext_sessions: true"], check: "clear text",
      state: .warning, says: "sessions may run unencrypted outside this host",
      remedy: "set gateway.cleartext_sessions to false"),
    Ailment(
      what: "users without password", gateway: ["passwordless_user: kiosk"], check: "passwords",
      state: .warning, says: "anybody is 'kiosk'", remedy: "empty gateway.passwordless_user"),
    Ailment(
      what: "plain HTTP", gateway: ["web_tls: false"], check: "web TLS", state: .warning,
      says: "plain HTTP", remedy: "set gateway.web_tls to true"),
    Ailment(
      what: "a certificate that is not there", gateway: ownCertificate, check: "certificate",
      state: .failed, says: "@/cert.pem cannot be read", remedy: "name another"),
    Ailment(
      what: "a certificate that has expired",
      preparation: "openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -subj /CN=here"
        + " -out request && openssl x509 -req -in request -signkey key.pem -days -1 -out cert.pem",
      gateway: ownCertificate, check: "certificate",
      state: .failed, says: "@/cert.pem has expired", remedy: "renew it"),
    Ailment(
      what: "a certificate that expires soon", preparation: certificate + " -days 9",
      gateway: ownCertificate, check: "certificate", state: .warning, says: "@/cert.pem expires in",
      remedy: "renew it"),
    Ailment(
      what: "a key of another certificate",
      preparation: certificate + " -days 90 && openssl genrsa -out key.pem 2048",
      gateway: ownCertificate, check: "certificate", state: .failed,
      says: "are not a certificate and its key", remedy: "name files that belong together"),
  ]

  static let ofMachines = [
    Ailment(
      what: "a VMM that knows no checks", preparation: "printf '#!/bin/sh\\nexit 64\\n' > vmm",
      check: "VMM check", state: .failed, says: "'@/vmm check --json' says nothing useful",
      remedy: "install the carrel-vmm that belongs to this carreld"),
    Ailment(
      what: "a KVM that the VMM cannot use",
      preparation: """
        cat > vmm <<'END'
        #!/bin/sh
        test "$*" = "check --json" || exit 64
        echo '{"ok": false, "checks": [{"name": "kvm", "ok": false, "text": "/dev/kvm is too old",
        "remedy": "boot a newer kernel"}]}'
        exit 1
        END
        """,
      check: "KVM", state: .failed, says: "/dev/kvm is too old", remedy: "boot a newer kernel"),
  ]
}

@Suite("The doctor")
struct DoctorTests {
  private let home: Home

  init() throws { home = try Home() }

  /// Runs `carreld doctor` for a site with these settings.
  private func examine(_ ailment: Ailment) throws -> (Home.Result, DoctorDocument) {
    let (status, output) = try home.directory.run(
      "mkdir -m 700 state run && printf '#!/bin/sh\\n' > vmm && {\n\(ailment.preparation)\n} && chmod +x vmm"
    )
    try #require(status == 0, "\(output)")
    let text = """
      state_directory: @/state
      runtime_directory: \(ailment.runtime)
      programs: {vmm: @/vmm, display: /bin/true}
      gateway:
        listen: ["127.0.0.1:0"]
        \((["stall_seconds: 2"] + ailment.gateway).joined(separator: "\n  "))

      """
    let file = try home.directory.write(Array(named(text).utf8), to: "carrel.yaml")
    let result = try home.run("carreld", ["doctor", "--json", "--config", file])
    return (result, try result.json(DoctorDocument.self))
  }

  private func named(_ text: String) -> String {
    text.replacingOccurrences(of: "@", with: home.directory.path)
  }

  @Test("names what is wrong with a site, and what to do", arguments: Ailment.all)
  func ailment(_ ailment: Ailment) throws {
    let (result, report) = try examine(ailment)
    let check = try #require(report.checks.first { $0.name == ailment.check }, "\(report)")
    #expect(check.state == ailment.state, "\(check)")
    #expect(check.detail.contains(named(ailment.says)), "\(check)")
    #expect(check.remedy?.contains(named(ailment.remedy)) == true, "\(check)")
    if ailment.state == .failed { #expect(result.code == 7) }
  }

  @Test("asks the VMM about KVM", .needsKVM, arguments: Ailment.ofMachines)
  func machine(_ ailment: Ailment) throws { try self.ailment(ailment) }

  @Test("names a port that somebody listens at, and is content with one that is free")
  func ports() throws {
    let taken = try TakenPort()
    let (_, report) = try examine(
      Ailment(
        what: "", gateway: ["web: [\"127.0.0.1:\(taken.number)\"]"], check: "", state: .failed,
        says: "", remedy: ""))
    let check = try #require(report.checks.first { $0.name == "port \(taken.number)" })
    #expect(check.state == .failed)
    #expect(check.detail.contains("127.0.0.1:\(taken.number) cannot be listened on"))
    #expect(check.remedy?.contains("ss -ltnp") == true)
  }

  @Test("names a limit of open files that is too low for the viewers")
  func openFiles() throws {
    let file = try home.directory.write(
      [UInt8]("gateway: {viewers: 100, connections_before_login: 50}\n".utf8), to: "carrel.yaml")
    for (limit, state) in [(799, DoctorDocument.Check.State.warning), (800, .ok)] {
      let (_, output) = try home.directory.run(
        "ulimit -n \(limit) && exec \(try Home.program("carreld")) doctor --json --config \(file)")
      let report = try JSONDecoder().decode(DoctorDocument.self, from: Data(output.utf8))
      let check = try #require(report.checks.first { $0.name == "open files" })
      #expect(check.state == state)
      #expect(check.detail == "\(limit) at once, 100 viewers may need 800")
      if state == .warning { #expect(check.remedy?.contains("LimitNOFILE=800") == true) }
    }
  }

  @Test("names a disk with little room", .needsRoot)
  func disk() throws {
    let disk = try SmallDisk(kibibytes: 2048)
    let result = try home.run(
      "carreld", ["doctor", "--json", "--state-directory", disk.path + "/state"])
    let check = try #require(
      try result.json(DoctorDocument.self).checks.first { $0.name == "disk" })
    #expect(check.state == .failed)
    #expect(check.detail.contains("2 MiB free for \(disk.path)/state"))
    #expect(check.remedy == "make room there")
  }

  @Test("names a directory of somebody else", .needsRoot)
  func owner() throws {
    let (status, _) = try home.directory.run("mkdir -m 700 state && chown nobody state")
    try #require(status == 0)
    let result = try home.run("carreld", ["doctor", "--json", "--state-directory", home.state])
    let check = try #require(
      try result.json(DoctorDocument.self).checks.first { $0.name == "state directory" })
    #expect(check.state == .failed)
    #expect(check.remedy?.hasPrefix("chown -R") == true)
  }

  @Test("names the file that a guest with a VGA has no option ROM without", .needsRoot)
  func optionROM() throws {
    let command = """
      exec unshare -m sh -c 'mount -t tmpfs none /usr/share/seabios &&
        touch /usr/share/seabios/bios-256k.bin && exec "$@"' sh \
        \(try Home.program("carreld")) doctor --json
      """
    let (_, output) = try home.directory.run(command)
    let report = try JSONDecoder().decode(DoctorDocument.self, from: Data(output.utf8))
    let check = try #require(report.checks.first { $0.name == "package seabios" })
    #expect(check.state == .warning)
    #expect(check.detail.contains("vgabios-stdvga.bin is missing"))
    #expect(check.remedy == "apt-get install seabios")
  }

  @Test("without /dev/kvm says how to get it", .needsRoot)
  func noKVM() throws {
    let command = """
      exec unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"' sh \
        \(try Home.program("carreld")) doctor --json
      """
    let (status, output) = try home.directory.run(command)
    #expect(status == 7)
    let report = try JSONDecoder().decode(DoctorDocument.self, from: Data(output.utf8))
    let check = try #require(report.checks.first { $0.name == "KVM" })
    #expect(check.state == .failed)
    #expect(check.remedy?.contains("modprobe kvm_intel") == true)
  }

  @Test("has nothing against a site that is as it should be, and knows an issued certificate")
  func healthy() throws {
    let daemon = try RunningDaemon(home)
    defer { daemon.stop() }
    let report = try home.carrel("doctor", "--json").json(DoctorDocument.self)
    for name in ["state directory", "runtime directory", "socket paths", "certificate"] {
      #expect(report.checks.first { $0.name == name }?.state == .ok, "\(name)")
    }
  }
}
