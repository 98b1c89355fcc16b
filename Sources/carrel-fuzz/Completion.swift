import Machine

/// What a guest may have completed for it, where KVM gave up.
let completionTargets: [String: FuzzTarget] = [
  "completion": { bytes, count in
    precondition(
      CompletionFuzzing.run(input(bytes, count)), "a fault changed more than it may")
  }
]
