import DeviceModel
import KVM
import LinuxSystem

/// A vCPU, the thread that runs it, and what its exits ask of the board.
///
/// Between two runs the thread holds the device lock; while guest code runs it
/// does not.
final class Processor {
  let cpu: VirtualCPU
  private unowned let board: Board
  private unowned let gate: RunGate
  private let stop: (String) -> Void
  private(set) lazy var bridge = CompletionBridge(cpu, board)
  private var thread: Thread?
  /// The last exit was a read or write that the kernel finishes at the next run.
  private var accessIsPending = false

  /// - Parameter stop: takes why the guest cannot go on; device lock held.
  init(cpu: VirtualCPU, board: Board, gate: RunGate, stop: @escaping (String) -> Void) {
    self.cpu = cpu
    self.board = board
    self.gate = gate
    self.stop = stop
  }

  /// Interrupts `run`, so that the thread looks at the gate.
  func kick() {
    cpu.kick()
    thread?.interrupt(.user1)
  }

  func start() throws(SystemError) {
    let box = Unsynchronized(self)
    thread = try Thread(name: "vcpu\(cpu.identifier)") { box.value.run() }
    board.lock.withLock { gate.join() }
  }

  /// The thread's number in the kernel, while it runs.
  var threadIdentifier: Int32? { thread?.kernelIdentifier }

  func join() {
    thread?.join()
    thread = nil
  }

  private func run() {
    Signal.user1.unblock()
    while gate.pass(parking: { park() }, passing: { cpu.clearKick() }) {
      do {
        let exit = try cpu.run()
        board.lock.withLock { handle(exit) }
      } catch {
        board.lock.withLock { stop("\(error)") }
      }
    }
  }

  /// Device lock held, about to wait: leaves a state that can be saved. One
  /// instruction may bring several accesses, all of which the kernel keeps to itself.
  private func park() {
    while accessIsPending {
      do {
        handle(try cpu.completeAccess())
      } catch {
        accessIsPending = false
        stop("\(error)")
      }
    }
  }

  private func handle(_ exit: VirtualCPU.Exit) {
    accessIsPending = false
    board.drainCoalescedWrites(of: cpu)
    switch exit {
    case .port(let port, let width, let count, let isWrite, let data):
      accessIsPending = true
      board.callingProcessor.cpu = cpu
      access(board.addresses.ports, UInt64(port), width, count, isWrite, data)
      if isWrite { board.notePortWrite(port) }
      board.callingProcessor.cpu = nil
    case .memory(let address, let isWrite, let data):
      accessIsPending = true
      accessMemory(address, isWrite, data)
    case .interrupted, .halted: break
    case .shutdown: board.control.requestReset(.tripleFault)
    case .internalError(let error):
      if let problem = completeInstruction(error) { stop(problem) }
    case .entryFailed(let reason):
      stop("the processor refused the guest's state (\(hexadecimal(reason)))")
    case .systemEvent(let type):
      stop("KVM reported system event \(type), which no PC has")
    case .other(let reason):
      stop("KVM stopped vCPU \(cpu.identifier) for unknown reason \(reason)")
    }
  }

  /// String instructions bring several units to the same port at once.
  private func access(
    _ bus: Bus, _ address: UInt64, _ width: Int, _ count: Int, _ isWrite: Bool,
    _ data: UnsafeMutableRawBufferPointer
  ) {
    for index in 0..<count {
      let offset = index * width
      guard offset + width <= data.count else { return }
      if isWrite {
        bus.write(address: address, width: width, value: integer(data, offset, width))
      } else {
        store(bus.read(address: address, width: width), data, offset, width)
      }
    }
  }

  /// Accesses of a width that is none of the bus's, such as unaligned ones that
  /// KVM split at a page's end, go by bytes.
  private func accessMemory(
    _ address: UInt64, _ isWrite: Bool, _ data: UnsafeMutableRawBufferPointer
  ) {
    let bus = board.addresses.memory
    let whole = [1, 2, 4, 8].contains(data.count)
    let width = whole ? data.count : 1
    for offset in stride(from: 0, to: data.count, by: width) {
      let at = address &+ UInt64(offset)
      if isWrite {
        bus.write(address: at, width: width, value: integer(data, offset, width))
      } else {
        store(bus.read(address: at, width: width), data, offset, width)
      }
    }
  }

  private func integer(
    _ data: UnsafeMutableRawBufferPointer, _ offset: Int, _ width: Int
  ) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width { value |= UInt64(data[offset + index]) << UInt64(index * 8) }
    return value
  }

  private func store(
    _ value: UInt64, _ data: UnsafeMutableRawBufferPointer, _ offset: Int, _ width: Int
  ) {
    for index in 0..<width {
      data[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
    }
  }
}

/// Carries a value to another thread that will be its only user, or that shares
/// it under the device lock.
struct Unsynchronized<Value>: @unchecked Sendable {
  // SAFETY: see the type's comment; each use says which of the two it is.
  let value: Value

  init(_ value: Value) { self.value = value }
}
