import CNativeCode
import LinuxSystem
import Machine
import TestSupport

/// Machine code for 32-bit protected mode (or, where said, real mode), assembled
/// by hand.
struct GuestProgram {
  private(set) var bytes: [UInt8] = []

  init() {}

  /// One that is written in assembly language.
  init(_ guest: cguest) {
    var code = [UInt8](repeating: 0, count: 4096)
    let count = cguest_copy(guest, &code, code.count)
    bytes = Array(code.prefix(count))
  }

  mutating func emit(_ code: UInt8...) { bytes += code }

  mutating func emit(word value: UInt32) {
    for shift in stride(from: UInt32(0), to: 32, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }

  /// This program after another one.
  func following(_ first: GuestProgram) -> GuestProgram {
    var whole = first
    whole.bytes += bytes
    return whole
  }

  /// mov eax, value
  mutating func loadEAX(_ value: UInt32) {
    emit(0xB8)
    emit(word: value)
  }

  /// mov edx, port
  mutating func port(_ number: UInt16) {
    emit(0xBA)
    emit(word: UInt32(number))
  }

  mutating func outByte(_ number: UInt16, _ value: UInt8) {
    port(number)
    emit(0xB0, value, 0xEE)
  }

  mutating func outWord(_ number: UInt16, _ value: UInt16) {
    port(number)
    loadEAX(UInt32(value))
    emit(0x66, 0xEF)
  }

  mutating func outLong(_ number: UInt16, _ value: UInt32) {
    port(number)
    loadEAX(value)
    emit(0xEF)
  }

  /// Writes AL to the serial port.
  mutating func sendAL() {
    port(0x3F8)
    emit(0xEE)
  }

  /// Writes AL to the serial port when its transmitter is empty; clobbers EAX and EDX.
  mutating func sendALWhenReady() {
    emit(0x88, 0xC4)  // mov ah, al
    port(0x3FD)
    emit(0xEC, 0xA8, 0x20, 0x74, 0xFB)  // in al, dx; test al, 0x20; jz
    emit(0x88, 0xE0)  // mov al, ah
    sendAL()
  }

  /// A jump of two bytes, conditional or not, to an earlier place.
  mutating func jump(_ code: UInt8, to place: Int) {
    emit(code, UInt8(truncatingIfNeeded: place - bytes.count - 2))
  }

  mutating func send(_ text: String) {
    for byte in text.utf8 { outByte(0x3F8, byte) }
  }

  /// mov dword [address], value
  mutating func store(_ value: UInt32, at address: UInt32) {
    emit(0xC7, 0x05)
    emit(word: address)
    emit(word: value)
  }

  /// mov eax, [address]
  mutating func loadEAX(from address: UInt32) {
    emit(0xA1)
    emit(word: address)
  }

  /// Counts in a word beyond the program, which resets leave alone, and sends the
  /// count, which is left in AL, as a digit.
  mutating func countStarts() {
    loadEAX(from: 0x20_0000)
    emit(0x40, 0xA3)  // inc eax; mov [0x200000], eax
    emit(word: 0x20_0000)
    emit(0x04, 0x30)  // add al, '0'
    sendAL()
  }

  /// An exception without an interrupt table: nine bytes.
  mutating func tripleFault() {
    emit(0x0F, 0x01, 0x1D)  // lidt [0x300000]: limit 0
    emit(word: 0x30_0000)
    emit(0x0F, 0x0B)  // ud2
  }

  /// Goes where there is no memory to execute.
  mutating func jumpIntoNothing() {
    loadEAX(0xD000_0000)
    emit(0xFF, 0xE0)  // jmp eax
  }

  /// ACPI S5 through the PM1 control register where the machine puts it.
  mutating func powerOff() {
    outWord(0x604, 0x2000)
    stop()
  }

  /// cli; hlt; jmp back
  mutating func stop() { emit(0xFA, 0xF4, 0xEB, 0xFD) }

  static let origin: UInt64 = 0x10_0000

  /// An ELF file with the program at 1 MiB and, for PVH, the note that names it.
  func elf(isPVH: Bool = true, at address: UInt64 = GuestProgram.origin) -> [UInt8] {
    var file = Little()
    file.bytes = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    let notesAt: UInt64 = 64 + 2 * 56
    let codeAt = notesAt + 20
    for value: UInt16 in [2, 62] { file.append(value) }
    file.append(UInt32(1))
    for value in [address, 64, 0] { file.append(value) }
    file.append(UInt32(0))
    for value: UInt16 in [64, 56, 2, 0, 0, 0] { file.append(value) }
    for value: UInt32 in [1, 7] { file.append(value) }
    let size = UInt64(bytes.count)
    for value in [codeAt, address, address, size, size + 4096, 4096] { file.append(value) }
    for value: UInt32 in [4, 4] { file.append(value) }
    for value: UInt64 in [notesAt, 0, 0, 20, 20, 4] { file.append(value) }
    for value: UInt32 in [4, 4, isPVH ? 18 : 1] { file.append(value) }
    file.bytes += Array("Xen\0".utf8)
    file.append(UInt32(truncatingIfNeeded: address))
    return file.bytes + bytes
  }

  /// A ROM of 4 KiB that starts with the program, in real mode.
  var rom: [UInt8] {
    var rom = bytes + [UInt8](repeating: 0x90, count: 4096 - bytes.count)
    // At the reset vector: jmp to the ROM's first byte.
    rom.replaceSubrange(0xFF0..<0xFF3, with: [0xE9, 0x0D, 0xF0])
    return rom
  }

  private struct Little {
    var bytes: [UInt8] = []

    mutating func append(_ value: some FixedWidthInteger) {
      for index in 0..<value.bitWidth / 8 {
        bytes.append(UInt8(truncatingIfNeeded: value >> (index * 8)))
      }
    }
  }
}

/// A machine with a program in it, its serial output in a file, and what happened.
final class TestGuest {
  let directory: TemporaryDirectory
  let machine: Machine
  let events = Guarded<[MachineEvent]>([])

  init(
    _ program: GuestProgram, isROM: Bool = false, isPVH: Bool = true,
    _ change: (inout MachineConfiguration, TemporaryDirectory) throws -> Void = { _, _ in }
  ) throws {
    let directory = try TemporaryDirectory()
    self.directory = directory
    var configuration = MachineConfiguration()
    configuration.memory = 16 << 20
    configuration.display = .none
    configuration.serial = .file(directory.path("serial"))
    let image = isROM ? program.rom : program.elf(isPVH: isPVH)
    let path = try directory.write(image, to: "program")
    configuration.boot =
      isROM ? .rom(path: path) : .kernel(path: path, initialRAMDisk: nil, commandLine: "")
    try change(&configuration, directory)
    machine = try Machine(configuration)
    machine.onEvent { [events] event in events.change { $0.append(event) } }
  }

  /// What the guest wrote to its serial port.
  var output: String {
    String(decoding: (try? directory.read("serial")) ?? [], as: UTF8.self)
  }

  /// Waits until the guest has written this and nothing else.
  func awaitOutput(_ text: String) throws {
    try eventually("the guest to write \(text)") { output == text }
  }

  /// Another machine that goes on from where this one is, which ends, and the far end of its
  /// serial socket.
  func moved() throws -> (machine: Machine, peer: SerialPeer) {
    let saved = try machine.save()
    machine.tearDown()
    var configuration = machine.configuration
    configuration.serial = .socket(directory.path("second"))
    let second = try Machine(configuration, from: saved)
    return (second, try SerialPeer(configuration))
  }

  /// Runs to the end.
  func run() throws -> EndReason {
    try machine.resume()
    return machine.waitForEnd()
  }

  /// Waits until the guest could not go on for the given time; says why.
  func waitUntilStuck(times: Int = 1) -> String {
    func reasons(_ events: [MachineEvent]) -> [String] {
      events.compactMap { if case .stuck(let reason) = $0 { reason } else { nil } }
    }
    return events.wait(until: { reasons($0).count >= times }) { reasons($0)[times - 1] }
  }

  /// Waits for an event like the one given.
  func wait(for event: MachineEvent) {
    events.wait(until: { $0.contains(event) }) { _ in }
  }
}

/// Looks again and again at what no event tells of, for a minute at most if not said otherwise.
func eventually(
  _ what: String, seconds: UInt64 = 60, _ condition: () throws -> Bool
) throws {
  let deadline = MonotonicClock.now + seconds * 1_000_000_000
  let pause = try Poller()
  while try !condition() {
    guard MonotonicClock.now < deadline else { throw NeverCame(what: what) }
    _ = try pause.wait(milliseconds: 1)
  }
}

struct NeverCame: Error {
  let what: String
}
