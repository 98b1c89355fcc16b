/// What completing an instruction needs of the machine around the registers.
///
/// Physical accesses never fail: where nothing decodes, reads give ones and writes are
/// dropped, as on a PC's bus.
package protocol CompletionPort: AnyObject {
  func readPhysical(_ address: UInt64, count: Int) -> [UInt8]
  func writePhysical(_ address: UInt64, _ bytes: [UInt8])

  /// Sets `bits` of the little-endian word of 4 bytes at `address`, as one access.
  func setBits(_ bits: UInt32, physical address: UInt64)

  /// Writes `new` (8 or 16 bytes) if `expected` is there, as one access; returns what
  /// was there before. `address` is a multiple of their count.
  func compareExchange(_ expected: [UInt8], _ new: [UInt8], physical address: UInt64) -> [UInt8]

  /// - Throws: `#GP` for one that does not exist.
  func modelSpecificRegister(_ index: UInt32) throws(CompletionStop) -> UInt64
  /// - Throws: `#GP` for one that does not exist, or a value that it does not take.
  func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) throws(CompletionStop)

  func extendedControlRegister() throws(CompletionStop) -> UInt64
  /// - Throws: `#GP` for a value that the processor does not take.
  func setExtendedControlRegister(_ value: UInt64) throws(CompletionStop)

  /// The XSAVE area in standard format: 512 bytes of x87 and SSE, a header of 64, then
  /// the components where CPUID leaf 0DH has them. Components that are not in use hold
  /// their initial values.
  func extendedState() throws(CompletionStop) -> [UInt8]
  func setExtendedState(_ area: [UInt8]) throws(CompletionStop)

  /// Components 2 and up that this processor has.
  var components: [ExtendedComponent] { get }

  /// Forgets translations of linear addresses.
  func flushTranslations() throws(CompletionStop)

  /// A random number of the host's.
  func random() -> UInt64
}

/// A component of the extended state (SDM vol. 1, 13.1), from CPUID leaf 0DH.
package struct ExtendedComponent: Hashable, Sendable {
  package var number: Int
  package var size: Int
  /// In the standard format.
  package var offset: Int
  /// In the compacted format it begins at a multiple of 64.
  package var isAligned: Bool

  package init(number: Int, size: Int, offset: Int, isAligned: Bool) {
    self.number = number
    self.size = size
    self.offset = offset
    self.isAligned = isAligned
  }
}

/// Why an instruction was not completed. Nothing of the guest has changed then, except
/// what a processor changes before it faults (accessed bits).
package enum CompletionStop: Error, Hashable, Sendable {
  case fault(ProcessorException)
  /// This module does not know the instruction, or not in this mode.
  case notCovered
  /// The host did not give or take a part of the state.
  case host(String)
}

/// An exception as it is delivered to the guest (SDM vol. 3, chapter 6).
package struct ProcessorException: Hashable, Sendable {
  package var vector: UInt8
  package var errorCode: UInt32?
  /// CR2, for a page fault.
  package var address: UInt64?

  package static let debug = ProcessorException(vector: 1)
  package static let breakpoint = ProcessorException(vector: 3)
  package static let invalidOpcode = ProcessorException(vector: 6)
  package static let deviceNotAvailable = ProcessorException(vector: 7)
  package static let floatingPoint = ProcessorException(vector: 16)

  package static func segmentNotPresent(_ selector: UInt16) -> ProcessorException {
    ProcessorException(vector: 11, errorCode: UInt32(selector & 0xFFFC))
  }

  package static func stackFault(_ selector: UInt16 = 0) -> ProcessorException {
    ProcessorException(vector: 12, errorCode: UInt32(selector & 0xFFFC))
  }

  package static func generalProtection(_ selector: UInt16 = 0) -> ProcessorException {
    ProcessorException(vector: 13, errorCode: UInt32(selector & 0xFFFC))
  }

  package static func pageFault(_ address: UInt64, code: UInt32) -> ProcessorException {
    ProcessorException(vector: 14, errorCode: code, address: address)
  }

  package init(vector: UInt8, errorCode: UInt32? = nil, address: UInt64? = nil) {
    self.vector = vector
    self.errorCode = errorCode
    self.address = address
  }
}
