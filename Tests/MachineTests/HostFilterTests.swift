import DeviceModel
import Glibc
import LinuxSystem
import Machine
import TestSupport
import Testing

/// The first frame of a TCP connection, as a guest may make it up.
private enum Opening {
  static func frame(to address: [UInt8], port: UInt16) -> [UInt8] {
    let isOld = address.count == 4
    let source: [UInt8] =
      isOld ? [192, 0, 2, 99] : [0xFD] + [UInt8](repeating: 0, count: 14) + [0x99]
    var segment: [UInt8] = bytes(40000) + bytes(port) + [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2]
    segment += [0xFF, 0xFF, 0, 0, 0, 0]
    // RFC 9293, section 3.1: the pseudo-header has the same words in both versions of IP.
    let sum = checksum(source + address + [0, 6] + bytes(UInt16(segment.count)) + segment)
    segment.replaceSubrange(16..<18, with: sum)
    let ethernet: [UInt8] = [2, 0, 0, 0, 0, 1, 0x52, 1, 2, 3, 4, 5]
    guard isOld else {
      let header: [UInt8] = [0x60, 0, 0, 0] + bytes(UInt16(segment.count)) + [6, 64]
      return ethernet + [0x86, 0xDD] + header + source + address + segment
    }
    var header: [UInt8] =
      [0x45, 0] + bytes(UInt16(20 + segment.count)) + [0, 1, 0, 0, 64, 6, 0, 0]
    header += source + address
    header.replaceSubrange(10..<12, with: checksum(header))
    return ethernet + [0x08, 0x00] + header + segment
  }

  private static func bytes(_ value: UInt16) -> [UInt8] {
    [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)]
  }

  private static func checksum(_ data: [UInt8]) -> [UInt8] {
    var sum = 0
    for index in stride(from: 0, to: data.count, by: 2) {
      sum += Int(data[index]) << 8 | Int(data[index + 1])
    }
    while sum > 0xFFFF { sum = (sum >> 16) + (sum & 0xFFFF) }
    return bytes(~UInt16(sum))
  }
}

@Suite("What a guest that is kept from the host may send to passt")
struct HostFilterTests {
  private let own: [UInt8] = [192, 0, 2, 2]
  private let ownNew: [UInt8] = [0xFD] + [UInt8](repeating: 0, count: 14) + [2]
  private var filter: HostFilter { HostFilter(own: [own, ownNew]) }

  /// 16 bytes that end so.
  private static func new(_ end: UInt8...) -> [UInt8] {
    [UInt8](repeating: 0, count: 16 - end.count) + end
  }

  @Test(
    "is nothing for addresses that mean the host",
    arguments: [
      [127, 0, 0, 1], [127, 255, 1, 2], [0, 0, 0, 0], [0, 1, 2, 3], new(), new(1),
      new(127, 0, 0, 1), new(0xFF, 0xFF, 127, 0, 0, 1), new(0xFF, 0xFF, 10, 0, 0, 1),
    ])
  func loopback(address: [UInt8]) {
    #expect(!filter.admits(Opening.frame(to: address, port: 80)))
  }

  @Test("is nothing for addresses that the host has now")
  func addresses() {
    var filter = filter
    for address in [own, ownNew] {
      #expect(!filter.admits(Opening.frame(to: address, port: 80)))
    }
    filter.own = []
    for address in [own, ownNew] {
      #expect(filter.admits(Opening.frame(to: address, port: 80)))
    }
  }

  @Test("is what goes to the network, and ARP")
  func elsewhere() {
    let global: [UInt8] = [0x20, 0x01] + [UInt8](repeating: 0, count: 13) + [1]
    let multicast: [UInt8] = [0xFF, 2] + [UInt8](repeating: 0, count: 13) + [2]
    for address in [[192, 0, 2, 1], [255, 255, 255, 255], [8, 8, 8, 8], global, multicast] {
      #expect(filter.admits(Opening.frame(to: address, port: 80)))
    }
    var arp = [UInt8](repeating: 0, count: 42)
    (arp[12], arp[13]) = (8, 6)
    #expect(filter.admits(arp))
  }

  @Test("is no frame that is cut short, and none of another protocol")
  func others() {
    let frames = [own, ownNew].map { Opening.frame(to: $0, port: 80) }
    for frame in frames {
      for length in 0..<frame.count { #expect(!filter.admits(Array(frame[..<length]))) }
    }
    var tagged = Opening.frame(to: [8, 8, 8, 8], port: 80)
    (tagged[12], tagged[13]) = (0x81, 0)
    #expect(!filter.admits(tagged))
  }

  @Test("the host's name servers are asked where they can be reached")
  func nameServers() {
    let text = """
      # nameserver 192.0.2.9
      nameserver 127.0.0.53
      nameserver\t192.0.2.1
      nameserver ::1
      nameserver fe80::1%eth0
      nameserver 2001:db8::1 # the other
      search nameserver example.org
      nameserver
      """
    #expect(NameServers.outside(text) == ["192.0.2.1", "2001:db8::1"])
    #expect(NameServers.outside("").isEmpty)
  }

  @Test("the host's addresses are its interfaces'")
  func current() throws {
    let addresses = try HostAddresses.current()
    #expect(addresses.contains([127, 0, 0, 1]))
    #expect(addresses.allSatisfy { $0.count == 4 || $0.count == 16 })
  }

  @Test("changes of the host's addresses are noticed", .needsRoot, .timeLimit(.minutes(1)))
  func changes() throws {
    let watch = try HostAddresses()
    let poller = try Poller()
    try poller.add(watch.descriptor, token: 1)
    let directory = try TemporaryDirectory()
    let (status, output) = try directory.run("ip address add 127.11.12.13/32 dev lo")
    try #require(status == 0, "\(output)")
    #expect(try poller.wait().map(\.token) == [1])
    watch.drain()
    #expect(try HostAddresses.current().contains([127, 11, 12, 13]))
    _ = try directory.run("ip address delete 127.11.12.13/32 dev lo")
    #expect(try poller.wait().map(\.token) == [1])
    #expect(try !HostAddresses.current().contains([127, 11, 12, 13]))
  }

  @Test(
    "passt connects a guest with the host's loopback unless it is kept from it",
    .needs("passt"), arguments: [true, false])
  func passt(reachesHost: Bool) throws {
    let listener = try LoopbackListener()
    var network = MachineConfiguration.Network(.user)
    network.reachesHost = reachesHost
    let link = try #require(try NetworkLink.open(network))
    let lock = Lock()
    let (answers, hasEnded) = (Guarded(0), Guarded(false))
    link.onReceive = { frame in
      let bytes = frame.bytes
      if bytes.count >= 42, bytes[12] == 8, bytes[13] == 6 { answers.change { $0 += 1 } }
      return true
    }
    link.onConnectionChange = {
      hasEnded.change { $0 = true }
      answers.change { $0 = .max / 2 }
    }
    try link.start(lock: lock)
    defer { link.close() }
    lock.withLock {
      link.send(NetworkFrame(Opening.frame(to: [127, 0, 0, 1], port: listener.port)))
    }
    // passt answers before it opens what came with the question, so that the second answer
    // tells that it has seen everything before the first.
    for count in 1...2 {
      lock.withLock { link.send(NetworkFrame(Self.question)) }
      answers.wait(until: { $0 >= count }) { _ in }
    }
    #expect(!hasEnded.withLock { $0 }, "passt ended by itself")
    #expect(listener.hasGuest == reachesHost)
  }

  /// Who has 192.0.2.77? passt answers for every address but the guest's own.
  private static let question: [UInt8] =
    [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x52, 1, 2, 3, 4, 5, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]
    + [0x52, 1, 2, 3, 4, 5, 192, 0, 2, 99, 0, 0, 0, 0, 0, 0, 192, 0, 2, 77]
}

/// A TCP socket that listens at 127.0.0.1.
private struct LoopbackListener {
  private let descriptor: FileDescriptor
  let port: UInt16

  init() throws {
    let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
    descriptor = FileDescriptor(owning: number)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    // SAFETY: a sockaddr_in is what both calls take for this family, with its size.
    let isBound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(number, $0, size) == 0 && listen(number, 4) == 0 && getsockname(number, $0, &size) == 0
      }
    }
    guard isBound else { throw SystemError(code: errno, "listen at 127.0.0.1") }
    port = UInt16(bigEndian: address.sin_port)
  }

  /// Whether somebody has connected.
  var hasGuest: Bool {
    let other = accept(descriptor.raw, nil, nil)
    if other >= 0 { close(other) }
    return other >= 0
  }
}
