import DeviceModel
import Devices
import Disk
import LinuxSystem
import Machine
import TestSupport
import Testing

/// The far end of a guest's serial socket.
struct SerialPeer {
  let socket: UnixSocket

  init(_ configuration: MachineConfiguration) throws {
    guard case .socket(let path) = configuration.serial else {
      throw SystemError(code: 22, "connect to a serial port that is no socket")
    }
    socket = try UnixSocket.connect(to: path, kind: .stream)
  }

  func read(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    while bytes.count < count {
      guard try !poller.wait(milliseconds: 60_000).isEmpty else {
        throw NeverCame(what: "\(count) bytes from the guest")
      }
      let message = try socket.receive(capacity: count - bytes.count)
      if message.isEnd { break }
      bytes += message.bytes
    }
    return bytes
  }
}

@Suite("Saving a machine while devices are busy", .needsKVM)
struct InMidFlightTests {
  private func configure(
    _ configuration: inout MachineConfiguration, _ directory: TemporaryDirectory
  ) {
    configuration.serial = .socket(directory.path("serial"))
  }

  @Test("a mouse packet half sent is sent to its end by the restored machine")
  func mousePacket() throws {
    var program = GuestProgram()
    program.waitForSerial()
    program.outByte(0x64, 0xD4)
    program.outByte(0x60, 0xF4)
    program.readKeyboardController()
    program.sendAL()
    program.readKeyboardController()
    program.sendAL()
    program.waitForSerial()
    for _ in 0..<2 {
      program.readKeyboardController()
      program.sendAL()
    }
    program.powerOff()
    var guest: TestGuest? = try TestGuest(program, configure)
    let machine = try #require(guest?.machine)
    let peer = try SerialPeer(machine.configuration)
    try peer.socket.send([1])
    try machine.resume()
    #expect(try peer.read(1) == [0xFA], "acknowledged")
    machine.send(.relativePointer(x: 5, y: -3, wheel: 0, horizontalWheel: 0, buttons: .left))
    #expect(try peer.read(1) == [0x09], "left button and the bit that is always set")
    let saved = try machine.save()
    machine.tearDown()
    let directory = guest?.directory
    guest = nil
    try withExtendedLifetime(directory) {
      var configuration = machine.configuration
      configuration.serial = .socket((directory?.path ?? "") + "/second")
      let second = try Machine(configuration, from: saved)
      let secondPeer = try SerialPeer(configuration)
      try second.resume()
      try secondPeer.socket.send([1])
      #expect(try secondPeer.read(2) == [5, 3])
      #expect(second.waitForEnd() == .guestShutdown)
    }
  }

  /// Runs a guest, which waits for a byte first, until it is `ready` for what happens
  /// `meanwhile` and said `before`, saves it, and returns what it says when it goes on in
  /// another machine, told to by a byte, until it switches itself off.
  private func carry(
    _ program: GuestProgram, ready: [UInt8] = [], saying before: [UInt8], then count: Int,
    _ change: (inout MachineConfiguration, TemporaryDirectory) throws -> Void = { _, _ in },
    meanwhile: (Machine) -> Void = { _ in }
  ) throws -> [UInt8] {
    let guest = try TestGuest(program) { configuration, directory in
      configure(&configuration, directory)
      try change(&configuration, directory)
    }
    let peer = try SerialPeer(guest.machine.configuration)
    // A guest that writes before its peer was accepted writes to nobody.
    try peer.socket.send([1])
    try guest.machine.resume()
    #expect(try peer.read(ready.count) == ready)
    meanwhile(guest.machine)
    #expect(try peer.read(before.count) == before)
    let (second, secondPeer) = try guest.moved()
    try second.resume()
    try secondPeer.socket.send([1])
    let answer = try secondPeer.read(count)
    #expect(second.waitForEnd() == .guestShutdown)
    return answer
  }

  @Test("a scan code half sent is sent to its end by the restored machine")
  func scanCode() throws {
    let rest = try carry(
      .passingOnScanCodes(4), ready: Array("r".utf8), saying: [0xE0], then: 4,
      meanwhile: { machine in
        machine.send(.key(KeyCode(0xE04B), pressed: true))
        machine.send(.key(KeyCode(0xE04B), pressed: false))
      })
    #expect(rest == [0x6B, 0xE0, 0xF0, 0x6B])
  }

  @Test("a key that send-key holds down is released by the restored machine")
  func heldKey() throws {
    let rest = try carry(
      .passingOnScanCodes(5), ready: Array("r".utf8), saying: [0x1C], then: 5,
      meanwhile: { machine in
        machine.press([KeyCode(0x1E)], milliseconds: 400)
        machine.press([KeyCode(0x30)], milliseconds: 1)
      })
    #expect(rest == [0xF0, 0x1C, 0x32, 0xF0, 0x32], "and the next key follows")
  }

  @Test("writes to ports that wait in KVM are in what is saved")
  func pileOfWrites() throws {
    var program = GuestProgram()
    program.waitForSerial()
    // So often that the port is told to KVM.
    for _ in 0..<100 { program.outByte(0x70, 0x50) }
    program.send("w")
    program.outByte(0x70, 0x51)
    program.emit(0xB9)  // mov ecx, turns: the machine is saved meanwhile
    program.emit(word: 2_000_000)
    program.emit(0x49, 0x75, 0xFD)  // dec ecx; jnz
    program.outByte(0x71, 0x5A)
    program.waitForSerial()
    for index: UInt8 in [0x50, 0x51] {
      program.outByte(0x70, index)
      program.emit(0xE4, 0x71)  // in al, 71h
      program.sendAL()
    }
    program.powerOff()
    let rest = try carry(program, saying: Array("w".utf8), then: 2)
    #expect(rest == [0, 0x5A])
  }

  @Test("an interrupt of the real-time clock that was pending is pending again")
  func clockInterrupt() throws {
    var program = GuestProgram()
    program.waitForSerial()
    for (register, value) in [(0x0A, 0x2F), (0x0B, 0x42)] as [(UInt8, UInt8)] {
      program.outByte(0x70, register)
      program.outByte(0x71, value)
    }
    program.waitForClockInterrupt()
    program.send("p")
    program.waitForSerial()
    program.readClockRequest()
    program.sendAL()
    program.outByte(0x70, 0x0C)
    program.emit(0xE4, 0x71, 0x24, 0xC0)  // in al, 71h; and al, 0c0h
    program.sendAL()
    // The flag went by reading it, and is set again half a second later.
    let loop = program.bytes.count
    program.outByte(0x70, 0x0C)
    program.emit(0xE4, 0x71, 0xA8, 0x40)  // in al, 71h; test al, 40h
    program.jump(0x74, to: loop)
    program.emit(0x24, 0xC0)
    program.sendAL()
    program.powerOff()
    let rest = try carry(program, saying: Array("p".utf8), then: 3)
    #expect(rest == [0x01, 0xC0, 0xC0])
  }

  @Test(
    "a sector half read by PIO is read to its end in the restored machine",
    arguments: [false, true])
  func programmedTransfer(isCD: Bool) throws {
    let image = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 5 ^ ($0 >> 9)) }
    var program = GuestProgram()
    program.waitForSerial()
    if isCD {
      program.startReadingCD(block: 3)
    } else {
      program.outByte(0x1F6, 0xE0)
      for (port, value) in [(0x1F2, 1), (0x1F3, 12), (0x1F4, 0), (0x1F5, 0), (0x1F7, 0x20)]
        as [(UInt16, UInt8)]
      {
        program.outByte(port, value)
      }
    }
    let base: UInt16 = isCD ? 0x170 : 0x1F0
    let words = isCD ? 1024 : 256
    program.waitForData(base)
    program.readWords(base, 100)
    program.sendWord()
    program.waitForSerial()
    program.readWords(base, UInt32(words - 100))
    program.sendWord()
    program.powerOff()
    func sum(_ range: Range<Int>) -> [UInt8] {
      let start = isCD ? 3 * 2048 : 12 * 512
      let sum = range.reduce(UInt16(0)) {
        let at = start + $1 * 2
        let sum = $0 &+ (UInt16(image[at]) | UInt16(image[at + 1]) << 8)
        return sum << 1 | sum >> 15
      }
      return [UInt8(sum & 0xFF), UInt8(sum >> 8)]
    }
    let rest = try carry(program, saying: sum(0..<100), then: 2) { configuration, directory in
      let path = try directory.write(image, to: "image")
      if isCD { configuration.cdrom = path } else { configuration.disks = [.init(path: path)] }
    }
    #expect(rest == sum(100..<words))
  }

  @Test("a DMA transfer under way is finished by the restored machine, with the same data")
  func diskTransfer() throws {
    let program = GuestProgram.readingDisk(turns: 200)
    let image = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ ($0 >> 8)) }
    func guest() throws -> TestGuest {
      try TestGuest(program) { configuration, directory in
        var disk = MachineConfiguration.Disk(path: try directory.write(image, to: "disk"))
        // So slow that there is a transfer under way nearly always, however fast the host is.
        disk.limits = DiskLimits([.operations: .init(200)])
        configuration.disks = [disk]
        configuration.memory = 4 << 20
      }
    }
    let undisturbed = try guest()
    #expect(try undisturbed.run() == .guestShutdown)
    let expected = try undisturbed.directory.read("serial")
    #expect(expected.count == 4)

    var caught: SavedMachine?
    var directory: TemporaryDirectory?
    var configuration = MachineConfiguration()
    for _ in 0..<40 where caught == nil {
      let candidate = try guest()
      try candidate.machine.resume()
      while candidate.machine.status == .running, let saved = try? candidate.machine.save() {
        let state = try saved.devices.state(IDEController.State.self, of: "ide")
        if let status = state?.channels.first?.busMaster.status, status & 1 != 0 {
          (caught, directory) = (saved, candidate.directory)
          configuration = candidate.machine.configuration
          break
        }
      }
      candidate.machine.tearDown()
    }
    let saved = try #require(caught, "no transfer was ever caught under way")
    let place = try #require(directory)
    configuration.serial = .file(place.path("serial2"))
    let second = try Machine(configuration, from: saved)
    try second.resume()
    #expect(second.waitForEnd() == .guestShutdown)
    #expect(try place.read("serial2") == expected)
  }
}

extension GuestProgram {
  /// Passes the keyboard's first byte on and, when told to go on, `count` more.
  static func passingOnScanCodes(_ count: Int) -> GuestProgram {
    var program = GuestProgram()
    program.waitForSerial()
    program.useRawKeyboard()
    program.send("r")
    program.readKeyboardController()
    program.sendAL()
    program.waitForSerial()
    for _ in 0..<count {
      program.readKeyboardController()
      program.sendAL()
    }
    program.powerOff()
    return program
  }

  /// Spins until the serial port has a byte, and takes it.
  mutating func waitForSerial() {
    port(0x3FD)
    emit(0xEC, 0xA8, 0x01, 0x74, 0xFB)  // in al,dx; test al,1; jz
    port(0x3F8)
    emit(0xEC)
  }

  /// Has the keyboard's codes as it sends them, without interrupts.
  mutating func useRawKeyboard() {
    outByte(0x64, 0x60)
    outByte(0x60, 0x04)
  }

  /// Spins until the keyboard controller has a byte, and takes it into AL.
  mutating func readKeyboardController() {
    emit(0xE4, 0x64, 0xA8, 0x01, 0x74, 0xFA, 0xE4, 0x60)
  }

  /// AL: bit 0 of the second interrupt controller's request register, IRQ 8's.
  mutating func readClockRequest() {
    emit(0xB0, 0x0A, 0xE6, 0xA0, 0xE4, 0xA0, 0x24, 0x01)
  }

  mutating func waitForClockInterrupt() {
    let loop = bytes.count
    readClockRequest()
    jump(0x74, to: loop)
  }

  /// Asks the CD-ROM drive for a block: a PACKET command with READ(10).
  mutating func startReadingCD(block: UInt8) {
    outByte(0x176, 0xA0)
    // A drive that was reset first says so: take what it has to say.
    for command: [UInt8] in [[0x03, 0, 0, 0, 18], [0x28, 0, 0, 0, 0, block, 0, 0, 1]] {
      outByte(0x171, 0)
      outByte(0x174, 0)
      outByte(0x175, 0x08)
      outByte(0x177, 0xA0)
      waitForData(0x170)
      let packet = command + [UInt8](repeating: 0, count: 12 - command.count)
      for at in stride(from: 0, to: 12, by: 2) {
        outWord(0x170, UInt16(packet[at]) | UInt16(packet[at + 1]) << 8)
      }
      if command[0] == 0x03 {
        waitForData(0x170)
        readWords(0x170, 9)
      }
    }
  }

  /// Until BSY is clear and DRQ set.
  mutating func waitForData(_ base: UInt16) {
    port(base + 7)
    let loop = bytes.count
    emit(0xEC, 0x24, 0x88, 0x3C, 0x08)  // in al, dx; and al, 88h; cmp al, 8
    jump(0x75, to: loop)
  }

  /// Adds up words of the data port in BX, which begins with 0.
  mutating func readWords(_ base: UInt16, _ count: UInt32) {
    emit(0x31, 0xDB, 0xB9)  // xor ebx, ebx; mov ecx, count
    emit(word: count)
    port(base)
    // in ax, dx; add bx, ax; rol bx, 1; loop
    emit(0x66, 0xED, 0x66, 0x01, 0xC3, 0x66, 0xD1, 0xC3, 0xE2, 0xF6)
  }

  /// Sends BX.
  mutating func sendWord() {
    emit(0x88, 0xD8)  // mov al, bl
    sendAL()
    emit(0x88, 0xF8)  // mov al, bh
    sendAL()
  }

  /// Reads 128 KiB by bus-master DMA again and again from rising sectors, adds up
  /// the first words, and sends the sum and switches off.
  static func readingDisk(turns: UInt32) -> GuestProgram {
    var program = GuestProgram()
    program.store(0x30_0000, at: 0x20_1000)  // two regions of 64 KiB
    program.store(0x0000_0000, at: 0x20_1004)
    program.store(0x31_0000, at: 0x20_1008)
    program.store(0x8000_0000, at: 0x20_100C)
    program.outLong(0xCF8, 0x8000_0904)
    program.outWord(0xCFC, 0x0005)  // I/O space, bus master
    program.outLong(0xCF8, 0x8000_0920)
    program.port(0xCFC)
    program.emit(0xED, 0x24, 0xFC, 0x89, 0xC3)  // in eax,dx; and al,0xfc; mov ebx,eax
    program.emit(0x31, 0xFF, 0xB9)  // xor edi,edi; mov ecx, turns
    program.emit(word: turns)
    let loop = program.bytes.count
    // Descriptor table, clear flags, start address and count, READ DMA, start.
    program.emit(0x8D, 0x53, 0x04)  // lea edx, [ebx+4]
    program.loadEAX(0x20_1000)
    program.emit(0xEF)
    program.emit(0x8D, 0x53, 0x02, 0xB0, 0x06, 0xEE)
    program.outByte(0x1F6, 0xE0)
    program.outByte(0x1F2, 0x00)  // 256 sectors
    program.port(0x1F3)
    program.emit(0x88, 0xC8, 0xEE)  // mov al, cl; out dx, al: the sector
    program.outByte(0x1F4, 0x00)
    program.outByte(0x1F5, 0x00)
    program.outByte(0x1F7, 0xC8)
    program.emit(0x89, 0xDA, 0xB0, 0x09, 0xEE)  // mov edx,ebx; start, to memory
    program.emit(0x8D, 0x53, 0x02)  // lea edx, [ebx+2]
    program.emit(0xEC, 0xA8, 0x04, 0x74, 0xFB)  // wait for the interrupt flag
    program.emit(0x89, 0xDA, 0xB0, 0x00, 0xEE)  // stop
    program.port(0x1F7)
    program.emit(0xEC)  // acknowledge
    for address: UInt32 in [0x30_0000, 0x30_FFFC, 0x31_0000, 0x31_FFFC] {
      program.emit(0x03, 0x3D)  // add edi, [address]
      program.emit(word: address)
      program.emit(0xC1, 0xC7, 0x03)  // rol edi, 3
    }
    program.emit(0x49, 0x0F, 0x85)  // dec ecx; jnz loop
    program.emit(word: UInt32(bitPattern: Int32(loop - program.bytes.count - 4)))
    program.emit(0x89, 0xF8)  // mov eax, edi
    for _ in 0..<4 {
      program.sendAL()
      program.emit(0xC1, 0xE8, 0x08)
    }
    program.powerOff()
    return program
  }
}
