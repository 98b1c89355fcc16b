import ControlAPI
import Foundation
import TestSupport
import Testing

@Suite("carreld starting and ending")
struct DaemonTests {
  private let home: Home

  init() throws { home = try Home() }

  /// Runs carreld to its end, which has to come by itself.
  private func refusal(_ arguments: [String]) throws -> Home.Result {
    try home.run("carreld", arguments)
  }

  @Test("directories, socket and database are the owner's alone, and the socket goes at the end")
  func permissions() throws {
    let daemon = try RunningDaemon(home)
    let (_, modes) = try home.directory.run(
      "stat -c %a state run run/control.sock state/carrel.db")
    #expect(modes.split(separator: "\n") == ["700", "700", "600", "600"])
    #expect(daemon.stop() == 0)
    #expect(access(home.socket, F_OK) != 0)
  }

  @Test("without carreld, carrel says so and how to start it")
  func unreachable() throws {
    let result = try home.carrel("status")
    #expect(result.code == 69)
    #expect(result.errors.contains("Start it with 'carreld'"))
    #expect(result.errors.contains(home.socket))
    let report = try home.carrel("doctor", "--json")
    #expect(report.code == 7)
    let checks = try report.json(DoctorDocument.self).checks
    #expect(checks.first?.name == "carreld")
    #expect(checks.first?.state == .failed)
    #expect(checks.contains { $0.name == "KVM" })
  }

  @Test("after kill -9 of carreld, carrel says that it does not run, and no more of sockets")
  func killed() throws {
    try RunningDaemon(home).kill()
    #expect(access(home.socket, F_OK) == 0)
    let result = try home.carrel("status")
    #expect(result.code == 69)
    #expect(
      result.errors
        == "carrel: carreld is not running: nobody listens at \(home.socket) any more. Start it "
        + "again with 'carreld' ('systemctl start carreld'); desktops run on meanwhile\n")
  }

  @Test("certificates that are not there, or none, are found by check, and said by carreld")
  func certificates() throws {
    let (certificate, key) = (home.directory.path("c.pem"), home.directory.path("k.pem"))
    let file = try home.directory.write(
      [UInt8](
        """
        state_directory: \(home.state)
        runtime_directory: \(home.runtime)
        gateway:
          listen: ["127.0.0.1:0"]
          web: []
          certificate: \(certificate)
          key: \(key)
        """.utf8), to: "carrel.yaml")
    func refused(_ reason: String, also: Bool = true) throws {
      for verb in [["check"], []] where also || !verb.isEmpty {
        let result = try refusal(verb + ["--config", file])
        #expect(result.code == 78, "\(verb): \(result.errors)")
        #expect(result.errors.contains(reason), "\(verb): \(result.errors)")
        #expect(!result.errors.contains("NSCocoa"), "\(verb): \(result.errors)")
        #expect(result.output.isEmpty)
      }
    }
    try refused("\(certificate), which is gateway.certificate in the configuration, cannot be read")
    _ = try home.directory.write([1, 2, 3], to: "c.pem")
    try refused("\(key), which is gateway.key in the configuration, cannot be read")
    _ = try home.directory.write([1, 2, 3], to: "k.pem")
    try refused("are not a certificate and its key in PEM: name files", also: false)
    let (status, output) = try home.directory.run(
      "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -days 9 -keyout k.pem -out c.pem")
    try #require(status == 0, "\(output)")
    let fine = try refusal(["check", "--config", file])
    #expect(fine.code == 0 && fine.output.contains("is fine"), "\(fine.errors)")
  }

  @Test("a second carreld on the same records is refused and names the first")
  func second() throws {
    let first = try RunningDaemon(home)
    let result = try refusal(home.daemonArguments)
    #expect(result.code == 1)
    #expect(result.errors.contains("process \(first.processIdentifier)"))
    #expect(try home.carrel("status").code == 0)
  }

  @Test("a wrong configuration is refused with file, line and suggestion")
  func configuration() throws {
    let file = try home.directory.write(
      [UInt8]("gateway:\n  web_tsl: false\n".utf8), to: "carrel.yaml")
    for verb in [[], ["check"], ["doctor"]] {
      let result = try refusal(verb + ["--config", file])
      #expect(result.code == 78)
      #expect(result.errors.contains("\(file):2: "))
      #expect(result.errors.contains("did you mean 'gateway.web_tls'?"))
    }
    #expect(access(home.state, F_OK) != 0)
  }

  @Test("a file that is no database is refused and left alone")
  func noDatabase() throws {
    _ = try home.directory.run("mkdir -m 700 state && head -c 4000 /dev/urandom > state/carrel.db")
    let before = try home.directory.read("state/carrel.db")
    let result = try refusal(home.daemonArguments)
    #expect(result.code == 1)
    #expect(result.errors.contains("not a usable database"))
    #expect(try home.directory.read("state/carrel.db") == before)
  }

  @Test("a state directory that cannot be made is refused with a remedy")
  func noDirectory() throws {
    _ = try home.directory.write([1], to: "file")
    let result = try refusal([
      "--simulate", "--state-directory", home.directory.path("file/state"), "--runtime-directory",
      home.runtime,
    ])
    #expect(result.code == 1)
    #expect(result.errors.contains("--state-directory"))
  }

  @Test(
    "with a full disk a pool is refused, nothing is half made, and it works once there is room",
    .needsRoot)
  func fullDisk() throws {
    let disk = try SmallDisk(kibibytes: 512)
    let home = try Home(state: disk.path + "/state")
    let daemon = try RunningDaemon(home)
    try disk.fill()
    // The log has room for a few records more.
    var refused: Home.Result?
    for number in 0..<200 where refused == nil {
      let result = try home.carrel(
        "pool", "create", "office\(number)", "--image", home.image, "--no-wait")
      if result.code != 0 { refused = result }
    }
    #expect(refused?.code == 5)
    #expect(refused?.errors.contains("full") == true)
    let before = try home.done("pool", "list", "--json").output
    try disk.empty()
    let after = try home.done("pool", "list", "--json").json([PoolDocument].self).count
    #expect(try JSONDecoder().decode([PoolDocument].self, from: Data(before.utf8)).count == after)
    try home.done("pool", "create", "later", "--image", home.image)
    daemon.stop()
  }
}
