import LinuxSystem
import Machine
import Snapshot
import TestSupport
import Testing

@Suite("virtio disks", .needsKVM)
struct VirtioDiskTests {
  /// Where the guest programs keep the ring and what belongs to it.
  private enum Place {
    static let rings: UInt32 = 0x30_0000
    static let available = rings + 0x1000
    static let used = rings + 0x2000
    static let header: UInt32 = 0x30_3000
    static let status: UInt32 = 0x30_3100
    static let data: UInt32 = 0x30_4000
  }

  private func setUpDisk(_ program: inout GuestProgram) {
    program.findVirtio(slot: 16 << 3)
    program.startVirtio(rings: Place.rings)
  }

  /// Has a sector read; `number` counts the requests from 1.
  private func read(_ program: inout GuestProgram, sector: UInt32, number: UInt32) {
    for (index, value) in [0, 0, sector, 0].enumerated() {
      program.store(UInt32(value), at: Place.header + UInt32(index) * 4)
    }
    program.describe(
      [(Place.header, 16, false), (Place.data, 512, true), (Place.status, 1, true)],
      rings: Place.rings)
    program.store(0xEE, at: Place.status)
    program.notifyVirtio(number: number, rings: Place.rings)
  }

  /// Sends the status and the first four bytes read.
  private func report(_ program: inout GuestProgram) {
    for place in [Place.status] + (0..<4).map({ Place.data + $0 }) {
      program.emit(0xA0)  // mov al, [place]
      program.emit(word: place)
      program.sendALWhenReady()
    }
  }

  private var image: [UInt8] {
    (0..<64).flatMap { sector in
      Array("S\(sector / 10)\(sector % 10)!".utf8) + Array(repeating: 0, count: 508)
    }
  }

  @Test("a guest reads sectors through PCI")
  func read() throws {
    var program = GuestProgram()
    setUpDisk(&program)
    for (number, sector) in [3, 42, 0, 63].enumerated() {
      read(&program, sector: UInt32(sector), number: UInt32(number) + 1)
      program.awaitUsed(number: UInt32(number) + 1, rings: Place.rings)
      report(&program)
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      let path = try directory.write(image, to: "disk")
      configuration.disks = [.init(path: path, isReadOnly: true, bus: .virtio)]
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "\0S03!\0S42!\0S00!\0S63!")
  }

  @Test("a guest reads a qcow2 image, and what it is based on", .needs("qemu-img", "qemu-io"))
  func overlay() throws {
    var program = GuestProgram()
    setUpDisk(&program)
    for (number, sector) in [3, 42, 0, 63].enumerated() {
      read(&program, sector: UInt32(sector), number: UInt32(number) + 1)
      program.awaitUsed(number: UInt32(number) + 1, rings: Place.rings)
      report(&program)
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      try directory.write(image, to: "base")
      // Sector 42 reads "0000" in the overlay.
      let (status, output) = try directory.run(
        """
        qemu-img create -q -f qcow2 -b base -F raw -o cluster_size=512 disk 64K &&
        qemu-io -f qcow2 -c 'write -q -P 0x30 21504 512' disk
        """)
      try #require(status == 0, "\(output)")
      configuration.disks = [
        .init(path: directory.path("disk"), format: .qcow2, bus: .virtio)
      ]
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "\0S03!\00000\0S00!\0S63!")
  }

  @Test("a machine saved while its disk is busy goes on with it when restored")
  func restored() throws {
    var program = GuestProgram()
    program.waitForSerial()
    setUpDisk(&program)
    read(&program, sector: 7, number: 1)
    program.send("r")
    // One request after the other until there is a byte on the serial port.
    let start = program.bytes.count
    program.emit(0x66, 0xA1)  // mov ax, [used + 2]
    program.emit(word: Place.used + 2)
    program.emit(0x66, 0x3B, 0x05)  // cmp ax, [available + 2]
    program.emit(word: Place.available + 2)
    program.jump(0x75, to: start)
    program.emit(0x66, 0xFF, 0x05)  // inc word [available + 2]
    program.emit(word: Place.available + 2)
    program.setWord(0x3000, 0)
    program.port(0x3FD)
    program.emit(0xEC, 0xA8, 0x01)  // in al, dx; test al, 1
    program.jump(0x74, to: start)
    report(&program)
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      let path = try directory.write(image, to: "disk")
      configuration.disks = [.init(path: path, isReadOnly: true, bus: .virtio)]
      configuration.serial = .socket(directory.path("serial"))
    }
    var machine = guest.machine
    var peer = try SerialPeer(machine.configuration)
    try peer.socket.send([1])
    try machine.resume()
    #expect(try peer.read(1) == Array("r".utf8))
    for round in 0..<4 {
      let saved = try machine.save()
      machine.tearDown()
      var configuration = machine.configuration
      configuration.serial = .socket(guest.directory.path("serial\(round)"))
      machine = try Machine(configuration, from: saved)
      peer = try SerialPeer(configuration)
      try machine.resume()
    }
    try peer.socket.send([1])
    // The status of the request on its way may not have been overwritten yet.
    #expect(try peer.read(5).dropFirst() == Array("S07!".utf8)[...])
    #expect(machine.waitForEnd() == .guestShutdown)
    machine.tearDown()
  }

  @Test(
    "what a disk puts in memory is in a snapshot that completes another",
    arguments: [MachineConfiguration.Disk.Format.raw, .qcow2], [UInt32(4096), 65536])
  func differential(format: MachineConfiguration.Disk.Format, count: UInt32) throws {
    let place: UInt32 = 0x40_0000
    var program = GuestProgram()
    program.waitForSerial()
    setUpDisk(&program)
    program.send("r")
    program.waitForSerial()
    for (index, value) in [0, 0, 16, 0].enumerated() {
      program.store(UInt32(value), at: Place.header + UInt32(index) * 4)
    }
    program.describe(
      [(Place.header, 16, false), (place, count, true), (Place.status, 1, true)],
      rings: Place.rings)
    program.notifyVirtio(number: 1, rings: Place.rings)
    program.awaitUsed(number: 1, rings: Place.rings)
    program.send("d")
    program.waitForSerial()
    for byte in [place, place + count - 1] {
      program.emit(0xA0)  // mov al, [byte]
      program.emit(word: byte)
      program.sendALWhenReady()
    }
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      let bytes = (0..<UInt32(128) << 10).map { UInt8(truncatingIfNeeded: $0 / 255) }
      try directory.write(bytes, to: "base")
      if format == .qcow2 {
        let (status, output) = try directory.run(
          "qemu-img convert -f raw -O qcow2 base disk")
        try #require(status == 0, "\(output)")
      } else {
        try directory.write(bytes, to: "disk")
      }
      configuration.disks = [
        .init(path: directory.path("disk"), format: format, isReadOnly: true, bus: .virtio)
      ]
      configuration.serial = .socket(directory.path("serial"))
    }
    let peer = try SerialPeer(guest.machine.configuration)
    try guest.machine.resume()
    try peer.socket.send([1])
    #expect(try peer.read(1) == Array("r".utf8))
    let identifiers = [MachineUUID.random(), MachineUUID.random()]
    let paths = identifiers.map { guest.directory.path("\($0).snapshot") }
    try guest.machine.saveSnapshot(
      SnapshotRequest(path: paths[0], identifier: identifiers[0], created: 1))
    try peer.socket.send([1])
    #expect(try peer.read(1) == Array("d".utf8))
    let report = try guest.machine.saveSnapshot(
      SnapshotRequest(
        path: paths[1], identifier: identifiers[1], base: identifiers[0], created: 2))
    #expect(report.isDifferential)
    guest.machine.tearDown()
    let chain = try SnapshotChain(path: paths[1]) { bytes in
      MachineUUID(bytes: bytes).map { guest.directory.path("\($0).snapshot") }
    }
    var configuration = guest.machine.configuration
    configuration.serial = .socket(guest.directory.path("second"))
    let machine = try Machine(configuration, from: try SavedMachine(chain))
    let second = try SerialPeer(configuration)
    try machine.resume()
    try second.socket.send([1])
    let ends = [16 * 512, 16 * 512 + count - 1].map { UInt8(truncatingIfNeeded: $0 / 255) }
    #expect(try second.read(2) == ends)
    #expect(machine.waitForEnd() == .guestShutdown)
    machine.tearDown()
  }

  /// Writes "virtio" to the serial port and switches the machine off.
  private static let bootSector: [UInt8] = {
    var code: [UInt8] = []
    for byte in "virtio".utf8 {
      code += [0xBA, 0xF8, 0x03, 0xB0, byte, 0xEE]  // mov dx, 3F8h; mov al, byte; out dx, al
    }
    code += [0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xFA, 0xF4]  // PM1 control: S5
    return code + [UInt8](repeating: 0, count: 510 - code.count) + [0x55, 0xAA]
  }()

  @Test("SeaBIOS boots from a virtio disk, though there is an IDE disk")
  func boots() throws {
    let directory = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = 32 << 20
    configuration.display = .none
    configuration.serial = .file(directory.path("serial"))
    let sectors = Self.bootSector + [UInt8](repeating: 0, count: (1 << 20) - 512)
    configuration.disks = [
      .init(path: try directory.write(sectors, to: "disk"), bus: .virtio, queues: 2),
      .init(path: try directory.write([UInt8](repeating: 0, count: 1 << 20), to: "other")),
    ]
    let machine = try Machine(configuration)
    defer { machine.tearDown() }
    try machine.resume()
    #expect(machine.waitForEnd() == .guestShutdown)
    #expect(String(decoding: try directory.read("serial"), as: UTF8.self) == "virtio")
  }
}
