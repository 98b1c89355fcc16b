import Devices
import LinuxSystem

/// The flash chip behind UEFI's variables: its bytes, the memory slot in front of them,
/// and the file that keeps them between runs.
final class VariableStore: FlashArray {
  private let memory: MappedMemory
  private var file: FileDescriptor?
  private var path: String
  private var unwritten: Range<Int>?
  private var hasFailed = false
  /// Puts the bytes where processors read, or takes them away.
  var onReadsArray: ((Bool) -> Void)?

  /// - Parameters:
  ///   - path: made from the template when there is none; `nil` keeps variables for as
  ///     long as the machine is there.
  ///   - template: variables as they come with the firmware.
  init(path: String?, template: FirmwareImage) throws(MachineError) {
    memory = try MappedMemory(name: "carrel-nvram", size: template.bytes.count)
    self.path = path ?? ""
    guard let path else {
      file = nil
      memory.bytes.copyBytes(from: template.bytes)
      return
    }
    let file = try Self.opened(path, template.bytes)
    self.file = file
    try Self.load(file, path, into: memory)
  }

  /// Another chip with the same bytes, which no file keeps.
  init(like other: VariableStore) throws(MachineError) {
    memory = try MappedMemory(name: "carrel-nvram", size: other.bytes.count)
    (file, path) = (nil, "")
    memory.bytes.copyMemory(from: UnsafeRawBufferPointer(other.bytes))
  }

  /// From now on a file, which is made when there is none, keeps the variables that are here.
  func keep(in path: String) throws(MachineError) {
    let file = try Self.opened(path, memory.bytes)
    try Self.checkSize(file, path, memory)
    (self.file, self.path) = (file, path)
    changed(0..<memory.bytes.count)
    write()
  }

  private static func opened(
    _ path: String, _ contents: some Collection<UInt8>
  ) throws(MachineError) -> FileDescriptor {
    do {
      if !Files.exists(path) { try Files.replace(path, with: contents) }
      let file = try FileDescriptor.open(path, [.writable, .nonBlocking, .noTerminal])
      try file.lock(exclusive: true)
      return file
    } catch {
      throw MachineError(
        .image, "the UEFI variables in \(path) cannot be used",
        remedy: "name a file of your own that no other machine uses, or none", cause: error)
    }
  }

  private static func load(
    _ file: FileDescriptor, _ path: String, into memory: MappedMemory
  ) throws(MachineError) {
    try checkSize(file, path, memory)
    guard (try? file.read(into: memory.bytes, offset: 0)) == memory.bytes.count else {
      throw MachineError(.image, "the UEFI variables in \(path) cannot be read")
    }
  }

  private static func checkSize(
    _ file: FileDescriptor, _ path: String, _ memory: MappedMemory
  ) throws(MachineError) {
    let size = (try? file.size()) ?? 0
    guard file.isRegularFile, size == UInt64(memory.bytes.count) else {
      throw MachineError(
        .image,
        "\(path) has \(size) bytes; the variables of this UEFI have \(memory.bytes.count)",
        remedy: "name another file, or remove this one to start with fresh variables")
    }
  }

  // MARK: FlashArray, device lock held

  var bytes: UnsafeMutableRawBufferPointer { memory.bytes }

  func setReadsArray(_ on: Bool) {
    onReadsArray?(on)
    if on { write() }
  }

  func changed(_ range: Range<Int>) {
    unwritten =
      unwritten.map {
        min($0.lowerBound, range.lowerBound)..<max($0.upperBound, range.upperBound)
      } ?? range
  }

  /// To the file, from where it outlives this process. What fails is tried again with
  /// the next change.
  private func write() {
    guard let file, let range = unwritten else { return }
    do {
      // SAFETY: the device reports ranges of the array only.
      let part = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory.bytes)[range])
      try file.write(part, offset: UInt64(range.lowerBound))
      unwritten = nil
      hasFailed = false
    } catch {
      if !hasFailed { report("UEFI variables are not kept: \(error)") }
      hasFailed = true
    }
  }

  /// Onto the disk: the host may lose power from now on.
  func synchronize() {
    write()
    do {
      try file?.synchronize()
    } catch {
      report("UEFI variables may be lost: \(error)")
    }
  }

  private func report(_ text: String) {
    // Nobody is left to tell when standard error is gone.
    try? FileDescriptor.standard(2).writeAll(Array("carrel-vmm: \(path): \(text)\n".utf8))
  }
}
