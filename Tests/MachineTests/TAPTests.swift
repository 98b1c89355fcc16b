import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("A network card on a TAP interface", .needsTAP, .serialized)
struct TAPTests {
  private static let host: [UInt8] = [192, 0, 2, 1]
  private static let guest: [UInt8] = [192, 0, 2, 2]
  private static let bulk = (0..<30_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 7) }

  /// Sends back what came, when all has.
  private static let echo = """
    import socket
    s = socket.create_server(("192.0.2.1", 7))
    print("ready", flush=True)
    c, _ = s.accept()
    d = b""
    while len(d) < 30000: d += c.recv(65536)
    c.sendall(d)
    c.recv(1)
    """

  private struct Seen: Sendable {
    var hostAddress: [UInt8] = []
    var echoed: [UInt8] = []
    var longest = 0
    var answersAfterDown = false
    var wasUp = false
    var isUpWithoutInterface = true
  }

  @Test(
    "carries checksums and segments that the driver left to it, both ways and on a second queue pair",
    .needs("python3"))
  func frames() throws {
    let seen = try OwnNetwork.run {
      var seen = Seen()
      let files = try TemporaryDirectory()
      let driver = try NetworkDriver(tap: "tap0")
      defer { driver.close() }
      try files.succeed("ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up")
      seen.hostAddress = try driver.resolve(Self.host, from: Self.guest)
      let server = try LoggedProcess("/usr/bin/env", ["python3", "-c", Self.echo])
      guard server.says("ready") else { throw NeverCame(what: server.text) }
      try driver.usePairs(2)
      var stream = TestStream(
        from: (NetworkDriver.address, Self.guest, 40_000), to: (seen.hostAddress, Self.host, 7))
      driver.send(stream.opening(), pair: 1)
      stream.take(try driver.receive(pair: 1) { stream.isAnswer($0) })
      driver.send(stream.segment(Self.bulk), pair: 1)
      while stream.received.count < Self.bulk.count {
        let frame = try driver.receive(pair: 1) { stream.isAnswer($0) }
        seen.longest = max(seen.longest, frame.bytes.count)
        stream.take(frame)
        driver.send(stream.segment([]), pair: 1)
      }
      seen.echoed = stream.received
      try files.succeed("ip link set tap0 down && ip link set tap0 up")
      seen.answersAfterDown =
        try driver.resolve(Self.host, from: Self.guest) == seen.hostAddress
      seen.wasUp = driver.isLinkUp
      try files.succeed("ip link del tap0")
      try eventually("the link to go down") { !driver.isLinkUp }
      driver.send(stream.segment([]), pair: 1)
      seen.isUpWithoutInterface = driver.isLinkUp
      return seen
    }
    #expect(seen.hostAddress.count == 6)
    #expect(seen.echoed == Self.bulk)
    #expect(seen.longest == 1514)
    #expect(seen.answersAfterDown && seen.wasUp && !seen.isUpWithoutInterface)
  }

  @Test("that cannot be attached to is refused with the reason, and what to do")
  func refused() throws {
    let errors = try OwnNetwork.run {
      let first = try NetworkLink.open(.init(.tap("tap0")))
      defer { first?.close() }
      return ["tap0", "lo", "a-name-that-is-too-long"].map { name in
        do {
          _ = try NetworkLink.open(.init(.tap(name)))
          return ""
        } catch {
          return "\(error)"
        }
      }
    }
    #expect(errors[0].contains("busy") && errors[0].contains("end what is attached to it"))
    #expect(
      errors[1].contains("Invalid argument") && errors[1].contains("give a TAP interface's name"))
    #expect(errors[2].contains("too long") && errors[2].contains("at most 15 characters"))
  }

  @Test(
    "that this user may not attach to ends carrel-vmm with the command that makes one",
    .needs("setpriv"))
  func permission() throws {
    let files = try TemporaryDirectory()
    let (status, output) = try files.run(
      "setpriv --bounding-set=-net_admin --inh-caps=-net_admin timeout 20"
        + " \(Programs.built("carrel-vmm")) run --memory 64M --net tap:nosuch0")
    #expect(status == 1)
    #expect(
      output.contains("attach to the TAP interface nosuch0: Operation not permitted")
        && output.contains("ip tuntap add nosuch0 mode tap user $USER"), "\(output)")
  }
}

extension TemporaryDirectory {
  /// Runs shell commands that must succeed.
  func succeed(_ commands: String) throws {
    let (status, output) = try run(commands)
    guard status == 0 else { throw NeverCame(what: "\(commands): \(output)") }
  }
}
