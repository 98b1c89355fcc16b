import Brokering
import Store
import Testing

@Suite("Stored pools")
struct PoolRecordTests {
  private let coding = JSONRecordCoding()

  /// As the version before pools had hardware wrote it.
  private static let old = """
    {"cpus":2,"created":1700000000000,"draining":false,\
    "image":{"arguments":"","kind":"disk","path":"/srv/debian.raw"},"kind":"dedicated",\
    "memoryMiB":2048,"name":"office","nextNumber":7,"policies":{"afterCrash":"restart",\
    "disconnectSeconds":0,"keyboardLayout":"de","onDisconnect":"keep","startAttempts":5,\
    "stopGraceSeconds":30,"takeover":"steal"},"size":8,"spares":1}
    """

  @Test("of an earlier version keep opening, with the machine they had")
  func earlier() throws {
    let pool = try coding.decode(Pool.self, from: [UInt8](Self.old.utf8))
    #expect(pool.name.rawValue == "office" && pool.kind == .dedicated)
    #expect(pool.memoryMiB == 2048 && pool.cpus == 2 && pool.diskMiB == nil)
    #expect(pool.size == 8 && pool.spares == 1 && pool.nextNumber == 7 && !pool.draining)
    #expect(pool.policies.keyboardLayout == "de")
    #expect(pool.hardware == Hardware() && pool.policies.diskLimits.isUnlimited)
    let now = String(decoding: try coding.encode(pool), as: UTF8.self)
    let hardware = try #require(now.firstRange(of: #""hardware":{"#))
    let end = try #require(now[hardware.upperBound...].firstIndex(of: "}"))
    var before = now
    before.removeSubrange(hardware.lowerBound...now.index(after: end))
    #expect(before == Self.old, "nothing else is written otherwise")
  }

  @Test("come back as they were stored")
  func again() throws {
    var pool = try coding.decode(Pool.self, from: [UInt8](Self.old.utf8))
    pool.draining = true
    pool.nextNumber = 9
    pool.hardware = Hardware(
      firmware: .uefi, video: .virtio(outputs: 3), network: .tap(prefix: "lan"),
      networkQueues: 4, audio: .virtio, usb: true, diskBus: .virtio)
    pool.policies.diskLimits = DiskLimits(
      operations: 500, operationsBurst: 2000, bandwidth: 1 << 20, bandwidthBurst: 1 << 30)
    #expect(try coding.decode(Pool.self, from: coding.encode(pool)) == pool)
  }

  /// As a version whose network cards had one pair of queues each wrote it.
  private static let hardware = """
    {"audio":"ac97","diskBus":"virtio","firmware":"uefi","network":"user,host=on","usb":false,\
    "video":"std"}
    """

  @Test("and what templates and snapshots are of, have one pair of queues where none is told")
  func queues() throws {
    let hardware = Hardware(firmware: .uefi, network: .user(.on), diskBus: .virtio)
    #expect(hardware.networkQueues == 1)
    let record = Self.old.dropLast() + #","hardware":\#(Self.hardware)}"#
    let pool = try coding.decode(Pool.self, from: [UInt8](record.utf8))
    #expect(pool.hardware == hardware)
    let machine = #""memoryMiB":2048,"cpus":2,"hardware":\#(Self.hardware)}"#
    let image = #"{"image":{"arguments":"","kind":"disk","path":"/srv/debian.raw"},"#
    let template = [UInt8]((image + machine).utf8)
    #expect(
      try coding.decode(TemplateMachine.self, from: template) == TemplateMachine(of: pool))
    let shape = [UInt8](#"{"kind":"disk",\#(machine)"#.utf8)
    #expect(try coding.decode(DesktopShape.self, from: shape) == DesktopShape(of: pool))
  }

  @Test("with a part that came later than this version are refused, not changed")
  func later() throws {
    let later = Self.old.dropLast() + #","hardware":{"video":"virtio,3d=on"}}"#
    #expect(throws: DecodingError.self) {
      try coding.decode(Pool.self, from: [UInt8](later.utf8))
    }
    let partial = Self.old.dropLast() + #","hardware":{"usb":true}}"#
    #expect(
      try coding.decode(Pool.self, from: [UInt8](partial.utf8)).hardware == Hardware(usb: true))
  }
}
