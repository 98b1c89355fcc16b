import DeviceModel
import Devices
import Testing

@Suite("The virtio network card")
struct VirtioNetTests {
  private typealias Setting = NetworkBench
  private static let address = NetworkBench.address
  private static let multiqueue: UInt64 = 1 << 22

  private static let plainHeader = [UInt8](repeating: 0, count: 12)

  private func frame(to target: [UInt8], count: Int = 60) -> [UInt8] {
    target + [2, 0, 0, 0, 0, 9, 0x12, 0x34]
      + (0..<count - 14).map { UInt8(truncatingIfNeeded: $0) }
  }

  @Test("sends a frame as it is, and takes one with a header before it")
  func plain() {
    let setting = Setting()
    let bytes = frame(to: [1, 2, 3, 4, 5, 6])
    setting.send(Self.plainHeader + bytes)
    #expect(setting.wire.sent.map(\.bytes) == [bytes])
    setting.receive.add([.writable(0xA_0000, 1600)])
    setting.receive.kick()
    let reply = frame(to: Self.address, count: 1514)
    #expect(setting.wire.bring(reply) == true)
    #expect(setting.receive.takeUsed()?.written == 1526)
    #expect(
      Array(setting.bench.memory.bytes[0xA_0000..<0xA_000C]) == Self.plainHeader[2...] + [1, 0])
    #expect(Array(setting.bench.memory.bytes[0xA_000C..<0xA_000C + 1514]) == reply)
  }

  @Test("a frame that finds no buffer is kept until there is one")
  func room() {
    let setting = Setting()
    let bytes = frame(to: Self.address)
    #expect(setting.wire.bring(bytes) == false)
    #expect(setting.wire.roomCount == 0)
    setting.receive.add([.writable(0xA_0000, 1600)])
    setting.receive.kick()
    #expect(setting.wire.roomCount == 1)
    #expect(setting.wire.bring(bytes) == true)
    #expect(setting.receive.takeUsed()?.written == 72)
  }

  @Test("a pulled cable, and one with nothing at its end, is a link that is down")
  func link() {
    let setting = Setting()
    #expect(setting.linkStatus == 1)
    setting.device.setLink(false)
    #expect(setting.linkStatus == 0)
    setting.send(Self.plainHeader + frame(to: Self.address))
    #expect(setting.wire.sent.isEmpty && setting.transmit.takeUsed() != nil)
    setting.device.setLink(true)
    #expect(setting.linkStatus == 1)
    setting.wire.isConnected = false
    #expect(setting.linkStatus == 0)
    let bare = VirtioNet(address: Self.address, pairs: 1, backend: nil, state: nil)
    #expect(!bare.isLinkUp)
  }

  /// The sum of a correct checksum and what it covers.
  private func sum(_ bytes: ArraySlice<UInt8>, _ start: UInt32 = 0) -> UInt32 {
    var total = start
    for (index, byte) in bytes.enumerated() { total += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
    while total > 0xFFFF { total = total >> 16 + total & 0xFFFF }
    return total
  }

  @Test("cuts a large TCP segment into frames with right headers and checksums")
  func segmentation() {
    let setting = Setting()
    let data = (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
    let ip: [UInt8] =
      [0x45, 0, 0x0B, 0xE0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    // Sequence number 0xFFFFFF00, so that it wraps; ACK, PSH and FIN.
    let tcp: [UInt8] =
      [0x30, 0x39, 0, 80, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 1, 0x50, 0x19, 0xFF, 0xFF, 0, 0, 0, 0]
    let bytes = [1, 2, 3, 4, 5, 6] + Self.address + [8, 0] + ip + tcp + data
    // NEEDS_CSUM, TCPv4, 54 bytes of headers, 1400 to a segment, checksum at 34 + 16.
    setting.send([1, 1, 54, 0, 0x78, 0x05, 34, 0, 16, 0, 0, 0] + bytes)
    let sent = setting.wire.sent.map(\.bytes)
    #expect(sent.map(\.count) == [1454, 1454, 254])
    #expect(sent.flatMap { $0[54...] } == data)
    var sequence: UInt32 = 0xFFFF_FF00
    for (index, part) in sent.enumerated() {
      #expect(Int(part[16]) << 8 | Int(part[17]) == part.count - 14)
      #expect(part[19] == 0x34 + UInt8(index), "identification")
      #expect(sum(part[14..<34]) == 0xFFFF, "header checksum")
      let length = UInt32(part.count - 34)
      #expect(sum(part[34...], sum(part[26..<34], 6 + length)) == 0xFFFF, "TCP checksum")
      #expect(part[38..<42].reduce(0) { $0 << 8 | UInt32($1) } == sequence)
      #expect(part[47] == (index == 2 ? 0x19 : 0x10), "flags")
      sequence &+= UInt32(part.count - 54)
    }
  }

  @Test("fills in a checksum that the driver left out")
  func checksum() {
    let setting = Setting()
    let ip: [UInt8] = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    let pseudo = UInt16(sum([10, 0, 0, 1, 10, 0, 0, 2], 17 + 12))
    let udp: [UInt8] =
      [0, 53, 0, 53, 0, 12, UInt8(pseudo >> 8), UInt8(pseudo & 0xFF), 1, 2, 3, 4]
    setting.send(
      [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0] + [1, 2, 3, 4, 5, 6] + Self.address + [8, 0] + ip + udp)
    let sent = setting.wire.sent.first?.bytes ?? []
    #expect(sent.count == 46)
    #expect(sum(sent.dropFirst(34), UInt32(sum([10, 0, 0, 1, 10, 0, 0, 2], 17 + 12))) == 0xFFFF)
  }

  @Test("takes only what the driver asked for")
  func filter() {
    let setting = Setting()
    for index in 0..<4 { setting.receive.add([.writable(0xA_0000 + UInt64(index) * 2048, 1600)]) }
    setting.receive.kick()
    func isTaken(_ target: [UInt8]) -> Bool {
      _ = setting.wire.bring(frame(to: target))
      return setting.receive.takeUsed() != nil
    }
    let group: [UInt8] = [1, 0, 0x5E, 0, 0, 7]
    #expect(isTaken([2, 2, 2, 2, 2, 2]), "promiscuous from the start")
    #expect(setting.command([0, 0, 0]) == 0)
    #expect(!isTaken([2, 2, 2, 2, 2, 2]) && !isTaken(group))
    #expect(isTaken(Self.address))
    #expect(setting.command([1, 0, 0, 0, 0, 0, 1, 0, 0, 0] + group) == 0)
    #expect(isTaken(group))
    #expect(setting.command([1, 0, 9, 0, 0, 0, 1, 0, 0, 0] + group) == 1)
    #expect(setting.command([9, 9]) == 1)
  }

  @Test("takes as many pairs of queues as it has")
  func pairs() {
    let setting = Setting(pairs: 4, features: Self.multiqueue)
    #expect(setting.bench.transport.read(offset: 0x2008, width: 2) & 0xFFFF == 4)
    #expect(setting.command([4, 0, 4, 0]) == 0)
    #expect(setting.command([4, 0, 5, 0]) == 1)
    #expect(setting.command([4, 0, 0, 0]) == 1)
  }

  @Test("what no driver sends is lost, or breaks the card until its reset")
  func malformed() {
    let setting = Setting()
    let bytes = frame(to: Self.address)
    for header: [UInt8] in [
      [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 16, 0, 0, 0], [1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0],
      [0, 1, 0, 0, 1, 0, 34, 0, 16, 0, 0, 0], [1, 4, 0, 0, 1, 0, 34, 0, 16, 0, 0, 0],
      [1, 9, 0, 0, 1, 0, 34, 0, 16, 0, 0, 0],
    ] {
      setting.send(header + bytes)
      #expect(setting.transmit.takeUsed() != nil)
    }
    #expect(setting.wire.sent.isEmpty && !setting.bench.needsReset)
    setting.send([0, 0, 0])
    #expect(setting.bench.needsReset && setting.bench.log.count == 1)
  }
}
