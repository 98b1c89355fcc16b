import DeviceModel
import Devices
import LinuxSystem
import Machine
import TestSupport
import Testing

/// The far end of a guest's serial socket.
private struct SerialPeer {
  let socket: UnixSocket

  init(_ configuration: MachineConfiguration) throws {
    guard case .socket(let path) = configuration.serial else {
      throw SystemError(code: 22, "connect to a serial port that is no socket")
    }
    socket = try UnixSocket.connect(to: path, kind: .stream)
  }

  func read(_ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
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

  @Test("a DMA transfer under way is finished by the restored machine, with the same data")
  func diskTransfer() throws {
    let program = GuestProgram.readingDisk(turns: 200)
    let image = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ ($0 >> 8)) }
    func guest() throws -> TestGuest {
      try TestGuest(program) { configuration, directory in
        configuration.disks = [.init(path: try directory.write(image, to: "disk"))]
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
    for _ in 0..<20 where caught == nil {
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
  /// Spins until the serial port has a byte, and takes it.
  mutating func waitForSerial() {
    port(0x3FD)
    emit(0xEC, 0xA8, 0x01, 0x74, 0xFB)  // in al,dx; test al,1; jz
    port(0x3F8)
    emit(0xEC)
  }

  /// Spins until the keyboard controller has a byte, and takes it into AL.
  mutating func readKeyboardController() {
    emit(0xE4, 0x64, 0xA8, 0x01, 0x74, 0xFA, 0xE4, 0x60)
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
