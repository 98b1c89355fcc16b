import CKVM
import Glibc
import LinuxSystem

/// One virtual processor. It runs on the thread that calls `run`; only `kick` may
/// be called from others.
public final class VirtualCPU {
  public let identifier: UInt32
  let machine: KVMMachine
  let descriptor: FileDescriptor
  private let mapping: MemoryMapping
  private let shared: UnsafeMutablePointer<kvm_run>

  init(
    descriptor: FileDescriptor, machine: KVMMachine, identifier: UInt32, mapSize: Int
  ) throws(KVMError) {
    self.descriptor = descriptor
    self.machine = machine
    self.identifier = identifier
    do {
      mapping = try MemoryMapping(descriptor, offset: 0, size: mapSize, access: .shared)
    } catch {
      throw KVMError(
        .operation, "the run page of vCPU \(identifier) could not be mapped", cause: error)
    }
    guard let start = mapping.bytes.baseAddress, mapSize >= MemoryLayout<kvm_run>.size else {
      throw KVMError(.operation, "the run page of vCPU \(identifier) is too small")
    }
    // SAFETY: the kernel maps a kvm_run at the start; `mapping` lives as long as self.
    shared = start.bindMemory(to: kvm_run.self, capacity: 1)
  }

  /// Why the vCPU stopped running guest code.
  public enum Exit {
    /// `data` holds `count` units of `width` bytes: to be taken (write) or filled
    /// (read) before the next `run`.
    case port(UInt16, width: Int, count: Int, isWrite: Bool, data: UnsafeMutableRawBufferPointer)
    /// `data` holds the bytes written, or is to be filled.
    case memory(UInt64, isWrite: Bool, data: UnsafeMutableRawBufferPointer)
    case halted
    /// Triple fault.
    case shutdown
    /// `kick`, or a signal.
    case interrupted
    case internalError(InternalError)
    /// The processor refused the guest's state.
    case entryFailed(reason: UInt64)
    case systemEvent(UInt32)
    case other(reason: UInt32)
  }

  /// KVM could not go on.
  public struct InternalError: Hashable, Sendable, CustomStringConvertible {
    /// 1: emulation failed.
    public let suberror: UInt32
    /// The instruction that could not be emulated, where known.
    public let instruction: [UInt8]
    public let data: [UInt64]

    public var isEmulationFailure: Bool { suberror == 1 }

    /// The same with an instruction that was found out otherwise.
    public func with(instruction: [UInt8]) -> InternalError {
      InternalError(suberror: suberror, instruction: instruction, data: data)
    }

    public var description: String {
      if isEmulationFailure {
        let bytes = instruction.map { byte in
          let text = String(byte, radix: 16)
          return text.count == 1 ? "0" + text : text
        }
        return "KVM could not emulate an instruction"
          + (bytes.isEmpty ? "" : " (bytes \(bytes.joined(separator: " ")))")
      }
      return "KVM internal error, suberror \(suberror)"
        + " (\(data.map { "0x" + String($0, radix: 16) }.joined(separator: " ")))"
    }
  }

  /// Runs guest code until something needs attention.
  public func run() throws(KVMError) -> Exit {
    let result = ckvm_run(descriptor.raw)
    if result < 0 {
      if result == -EINTR || result == -EAGAIN { return .interrupted }
      try checked(result, "run vCPU \(identifier)")
    }
    let reason = ckvm_exit_reason(shared)
    switch Int32(bitPattern: reason) {
    case KVM_EXIT_IO: return portExit()
    case KVM_EXIT_MMIO: return memoryExit()
    case KVM_EXIT_HLT: return .halted
    case KVM_EXIT_SHUTDOWN: return .shutdown
    case KVM_EXIT_FAIL_ENTRY: return .entryFailed(reason: ckvm_exit_hardware_reason(shared))
    case KVM_EXIT_INTR: return .interrupted
    case KVM_EXIT_INTERNAL_ERROR: return .internalError(internalError())
    case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(ckvm_exit_system_event(shared))
    default: return .other(reason: reason)
    }
  }

  private func portExit() -> Exit {
    let io = ckvm_exit_io(shared)
    let length = Int(io.size) * Int(io.count)
    let offset = Int(clamping: io.data_offset)
    guard offset >= 0, length <= mapping.bytes.count - offset else { return .other(reason: 2) }
    // SAFETY: checked to lie inside the run page's mapping.
    let data = UnsafeMutableRawBufferPointer(rebasing: mapping.bytes[offset..<offset + length])
    return .port(
      io.port, width: Int(io.size), count: Int(io.count), isWrite: io.is_write != 0, data: data)
  }

  private func memoryExit() -> Exit {
    let mmio = ckvm_exit_mmio(shared)
    // SAFETY: the kernel's data field has room for 8 bytes.
    let data = UnsafeMutableRawBufferPointer(start: mmio.data, count: min(8, Int(mmio.length)))
    return .memory(mmio.address, isWrite: mmio.is_write != 0, data: data)
  }

  private func internalError() -> InternalError {
    let error = ckvm_exit_internal_error(shared)
    var bytes = error.instruction
    var data = error.data
    // SAFETY: both copies are fixed-size C arrays that outlive the closures.
    let instruction = withUnsafeBytes(of: &bytes) { Array($0.prefix(Int(error.instruction_size))) }
    // SAFETY: as above.
    let words = withUnsafeBytes(of: &data) {
      Array($0.bindMemory(to: UInt64.self).prefix(Int(error.data_count)))
    }
    return InternalError(suberror: error.suberror, instruction: instruction, data: words)
  }

  /// Makes the present or next `run` return `.interrupted`, once the calling
  /// thread is interrupted too (`Thread.interrupt`). Any thread.
  public func kick() {
    ckvm_set_immediate_exit(shared, 1)
  }

  /// Undoes `kick`.
  public func clearKick() {
    ckvm_set_immediate_exit(shared, 0)
  }

  /// Finishes the port or memory access that the last exit was for, without
  /// running on.
  ///
  /// - Returns: `.interrupted` when nothing is left of the instruction, so that the
  ///   registers can be saved; otherwise its next part (the write of a `MOVS` whose
  ///   read this was, the rest of an access that KVM split), to be served and
  ///   completed likewise.
  public func completeAccess() throws(KVMError) -> Exit {
    kick()
    defer { clearKick() }
    return try run()
  }

  /// Calls `body` for each write that the kernel let pile up, oldest first.
  public func drainCoalescedWrites(
    _ body: (_ address: UInt64, _ isPort: Bool, _ width: Int, _ value: UInt64) -> Void
  ) {
    let page = UInt32(machine.coalescedPage)
    guard page > 0 else { return }
    var address: UInt64 = 0
    var length: UInt32 = 0
    var value: UInt64 = 0
    var isPort: Int32 = 0
    while ckvm_take_coalesced(shared, page, &address, &length, &value, &isPort) != 0 {
      body(address, isPort != 0, Int(length), value)
    }
  }

  public func setCPUID(_ entries: [kvm_cpuid_entry2]) throws(KVMError) {
    try checked(
      ckvm_set_cpuid(descriptor.raw, entries, UInt32(entries.count)),
      "set the CPUID of vCPU \(identifier)")
  }
}
