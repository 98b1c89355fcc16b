import Disk
import LinuxSystem
import Machine
import QMP
import TestSupport
import Testing

@Suite("Limits of a machine's disks", .needsKVM)
struct DiskLimitTests {
  private enum Place {
    static let rings: UInt32 = 0x30_0000
    static let header: UInt32 = 0x30_3000
    static let status: UInt32 = 0x30_3100
    static let data: UInt32 = 0x30_4000
  }

  /// Of sectors, one in eight minutes.
  private let hardlyAny = DiskLimits([.bytes: .init(1)])

  /// Reads the first sector of a virtio disk again and again, and writes `r` each time.
  private func readingVirtio(times: UInt32) -> GuestProgram {
    var program = GuestProgram()
    program.findVirtio(slot: 16 << 3)
    program.startVirtio(rings: Place.rings)
    for word in 0..<4 { program.store(0, at: Place.header + UInt32(word) * 4) }
    program.describe(
      [(Place.header, 16, false), (Place.data, 512, true), (Place.status, 1, true)],
      rings: Place.rings)
    for number in 1...times {
      program.notifyVirtio(number: number, rings: Place.rings)
      program.awaitUsed(number: number, rings: Place.rings)
      program.send("r")
    }
    program.powerOff()
    return program
  }

  /// Reads a sector of an IDE disk by PIO again and again, and writes `r` each time.
  private func readingIDE(times: Int) -> GuestProgram {
    var program = GuestProgram()
    program.outByte(0x1F6, 0xE0)
    for _ in 0..<times {
      for (port, value) in [(0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F7, 0x20)]
        as [(UInt16, UInt8)]
      {
        program.outByte(port, value)
      }
      program.waitForData(0x1F0)
      program.readWords(0x1F0, 256)
      program.send("r")
    }
    program.powerOff()
    return program
  }

  private func guest(
    _ program: GuestProgram, _ bus: MachineConfiguration.Disk.Bus, _ limits: DiskLimits
  ) throws -> TestGuest {
    try TestGuest(program) { configuration, directory in
      let image = [UInt8](repeating: 0, count: 1 << 20)
      var disk = MachineConfiguration.Disk(path: try directory.write(image, to: "disk"), bus: bus)
      disk.limits = limits
      configuration.disks = [disk]
    }
  }

  private func reading(
    _ bus: MachineConfiguration.Disk.Bus, times: Int
  ) -> GuestProgram {
    bus == .ide ? readingIDE(times: times) : readingVirtio(times: UInt32(times))
  }

  @Test(
    "a guest gets no more requests through than it may",
    arguments: [MachineConfiguration.Disk.Bus.ide, .virtio])
  func operations(bus: MachineConfiguration.Disk.Bus) throws {
    let guest = try guest(
      reading(bus, times: 10), bus, DiskLimits([.operations: .init(20)]))
    let start = MonotonicClock.now
    #expect(try guest.run() == .guestShutdown)
    // Three may go at once: the others are 50 ms apart.
    #expect(MonotonicClock.now - start >= 350_000_000)
    #expect(guest.output == String(repeating: "r", count: 10))
  }

  @Test("DMA is limited by its bytes, and brings the same data")
  func transfers() throws {
    let program = GuestProgram.readingDisk(turns: 8)
    let free = try guest(program, .ide, DiskLimits())
    #expect(try free.run() == .guestShutdown)
    let limited = try guest(program, .ide, DiskLimits([.bytesRead: .init(2 << 20)]))
    let start = MonotonicClock.now
    #expect(try limited.run() == .guestShutdown)
    // 128 KiB each, of which 1.6 may go at once.
    #expect(MonotonicClock.now - start >= 320_000_000)
    #expect(limited.output == free.output)
  }

  @Test(
    "a request that waits goes when the limits are lifted",
    arguments: [MachineConfiguration.Disk.Bus.ide, .virtio])
  func lifted(bus: MachineConfiguration.Disk.Bus) throws {
    let guest = try guest(reading(bus, times: 5), bus, hardlyAny)
    let name = bus == .ide ? "ide0-hd0" : "virtio0"
    func limits() -> DiskLimits? {
      guest.machine.driveDescriptions.first { $0.name == name }?.medium?.limits
    }
    #expect(limits() == hardlyAny)
    try guest.machine.resume()
    try eventually("the first sector") { guest.output == "r" }
    #expect(guest.machine.status == .running)
    try guest.machine.limitDisk(name, to: DiskLimits([.operations: .init(1_000_000)]))
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.output == "rrrrr")
    #expect(throws: MachineError.self) { try guest.machine.limitDisk(name, to: DiskLimits()) }
  }

  @Test("limits that cannot be, and those of no disk, change nothing")
  func refused() throws {
    let guest = try guest(reading(.virtio, times: 1), .virtio, hardlyAny)
    for (name, limits) in [
      ("virtio1", DiskLimits()), (Machine.cdromName, DiskLimits()),
      ("virtio0", DiskLimits([.bytes: .init(1), .bytesRead: .init(1)])),
    ] {
      let error = #expect(throws: MachineError.self) {
        try guest.machine.limitDisk(name, to: limits)
      }
      #expect(error?.kind == .configuration)
    }
    #expect(guest.machine.driveDescriptions.first?.medium?.limits == hardlyAny)
  }

  @Test(
    "a machine that is saved while a request waits makes it anew when restored",
    arguments: [MachineConfiguration.Disk.Bus.ide, .virtio])
  func saved(bus: MachineConfiguration.Disk.Bus) throws {
    let guest = try guest(reading(bus, times: 3), bus, hardlyAny)
    try guest.machine.resume()
    try eventually("the first sector") { guest.output == "r" }
    let saved = try guest.machine.save()
    guest.machine.tearDown()
    var configuration = guest.machine.configuration
    configuration.serial = .file(guest.directory.path("again"))
    configuration.disks[0].limits = DiskLimits()
    let second = try Machine(configuration, from: saved)
    try second.resume()
    #expect(second.waitForEnd() == .guestShutdown)
    second.tearDown()
    let output = try guest.directory.read("again")
    #expect(output == Array("rr".utf8))
  }

  @Test("a machine is suspended at once though a request waits")
  func suspended() throws {
    let guest = try guest(reading(.virtio, times: 3), .virtio, hardlyAny)
    try guest.machine.resume()
    try eventually("the first sector") { guest.output == "r" }
    let request = SnapshotRequest(
      path: guest.directory.path("saved"), identifier: .random(), created: 0)
    try guest.machine.suspend(to: request)
    #expect(guest.machine.endReason == .suspended)
    guest.machine.tearDown()
  }

  @Test("a disk goes over to an overlay though a request waits, which is limited as before")
  func switched() throws {
    let guest = try guest(reading(.virtio, times: 3), .virtio, hardlyAny)
    try guest.machine.resume()
    try eventually("the first sector") { guest.output == "r" }
    try guest.machine.switchDisks([
      OverlayRequest(device: "virtio0", file: guest.directory.path("overlay"))
    ])
    let medium = try #require(guest.machine.driveDescriptions.first?.medium)
    #expect(medium.limits == hardlyAny && medium.layers.count == 2)
    #expect(guest.output == "r")
    try guest.machine.limitDisk("virtio0", to: DiskLimits())
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.output == "rrr")
  }

  @Test("the program takes limits with its disk, and others by QMP, and shows which there are")
  func program() throws {
    var guest = GuestProgram()
    guest.stop()
    let directory = try TemporaryDirectory()
    try directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk")
    let program = try RunningProgram(
      guest,
      [
        "--vga", "none", "--disk",
        "@/disk,bus=virtio,bps-rd=2M,bps-rd-max=8M,bps-rd-max-length=3,bps=0,iops=0500,"
          + "iops-size=4K",
      ], in: directory)
    let control = try program.control()
    func limits() throws -> [String: Int] {
      let disk = try control.execute("query-block").elements?.first { $0["device"] == "virtio0" }
      guard case .object(let members) = disk?["inserted"] else { return [:] }
      return members.filter { $0.key.hasPrefix("bps") || $0.key.hasPrefix("iops") }
        .compactMapValues(\.whole).filter { $0.value != 0 }
    }
    #expect(
      try limits() == [
        "bps_rd": 2 << 20, "bps_rd_max": 8 << 20, "bps_rd_max_length": 3, "iops": 500,
        "iops_size": 4096,
      ])
    var arguments: [String: JSON] = ["device": "virtio0"]
    for name in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] { arguments[name] = 0 }
    arguments["bps"] = 100
    arguments["iops_wr"] = 7
    try control.execute("block_set_io_throttle", .object(arguments))
    #expect(try limits() == ["bps": 100, "iops_wr": 7])
    arguments["bps_wr"] = 100
    let error = #expect(throws: QMPError.self) {
      try control.execute("block_set_io_throttle", .object(arguments))
    }
    #expect(error?.context.contains("bps limits reads and writes together") == true)
    #expect(try limits() == ["bps": 100, "iops_wr": 7], "what was there stays")
    try control.execute("quit")
  }
}
