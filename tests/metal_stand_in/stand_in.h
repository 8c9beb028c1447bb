/* stand_in.h: what the parts of the stand-in Metal know of each other. */
#ifndef STAND_IN_H
#define STAND_IN_H

#import <Foundation/Foundation.h>

/* A rule of Metal's API was broken: says so and stops the program. */
void stand_in_broken(const char *rule) __attribute__((noreturn));

/* Autoreleased. */
NSError *stand_in_error(NSInteger code, NSString *text);

/* stand_in_compiler.m: the shared object of a text: from the folder of earlier ones, or made now;
 * nil with *error. */
NSString *stand_in_compile(NSString *source, NSError **error);

#endif
